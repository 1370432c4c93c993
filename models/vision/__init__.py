"""Image towers, one file each: any module with ``width`` that maps [B,C,S,S] to [B,width].

A tower may have losses of its own, such as the orthogonality of ACM: its attribute ``own_losses`` is then true and its
forward takes ``with_losses=True``. An objective that trains a tower calls ``encode``, which works for every tower:

    features, losses = encode(model.vision, images)
    return {"bce_loss": ..., **losses}

The losses are returned and never kept on a module, so that each call has its own (two views, a prior and a current
film, a teacher), and nothing is lost or held under torch.compile, activation checkpointing, several devices or
torch.func. Each is a scalar, weighted already, whose name ends in ``_loss``. To evaluate, call the tower itself.
"""

from __future__ import annotations

from torch import Tensor, nn

PARTS = ("acm",)
"""Files of this folder that are parts of towers, not towers that a configuration could name."""


def encode(tower: nn.Module, images_BCSS: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Features [B,width] of ``images`` and the tower's own losses, none for most towers."""
    if getattr(tower, "own_losses", False):
        return tower(images_BCSS, with_losses=True)
    return tower(images_BCSS), {}
