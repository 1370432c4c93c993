"""Where a tower looks on a film: the last block's attention of a ViT, both attentions of every ACM of a ResNet.

All maps are relative to even attention: 1 is what a spot would get if the model looked everywhere alike, 5 is five
times as much. The mean of a map over its grid is 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.vision.acm import ACM
from models.vision.vit import ViT


class NoAttention(ValueError):
    """A tower without anything that attends."""


@dataclass(frozen=True)
class Comparison:
    """One ACM on one film.

    place: of the block, e.g. ``layer3.5``; correlation: d, near 0 when the two look at different things.
    focus [h,w], context [h,w]: where K and where Q are taken from, averaged over the groups by how much each changes
    the features; their difference is what the module compares.
    """

    place: str
    focus: Tensor
    context: Tensor
    correlation: float


@torch.no_grad()
def last_attention(tower: ViT, images_BCSS: Tensor) -> Tensor:
    """Attention of the last block to each patch, [B,H,g,g], from what the tower reads out.

    That is the class token, or, where the tower pools the patches, their mean; attention to the class token itself is
    left out.
    """
    x_BTD = tower._embed(images_BCSS)
    *body, last = tower.blocks
    for block in body:
        x_BTD = block(x_BTD)
    B, T, _ = x_BTD.shape
    q, k, _ = last.attn._split(last.attn.qkv(last.norm1(x_BTD)), 3)
    q = q[:, :, :1] if tower.cfg.pool == "cls" else q[:, :, 1:]
    attention = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1).mean(2)[:, :, 1:]
    grid = round((T - 1) ** 0.5)
    return _relative(attention.view(B, -1, grid, grid))


@torch.no_grad()
def comparisons(tower: nn.Module, image_1CSS: Tensor) -> list[Comparison]:
    """Every ACM of ``tower`` on one film, from the first block to the last.

    Raises:
        NoAttention: a tower without one.
    """
    found: list[Comparison] = []

    def listen(place: str, module: ACM, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0] if len(inputs) == 1 else inputs[1](inputs[0])
        maps, change, correlation = module.looks(x)
        share = change[0] / change[0].sum() if change.any() else torch.full_like(change[0], 1 / module.groups)
        focus, context = (_relative(maps[0]) * share[:, None, None]).sum(1)
        found.append(Comparison(place, focus, context, float(correlation[0])))

    modules = {name.removesuffix(".acm"): m for name, m in tower.named_modules() if isinstance(m, ACM)}
    if not modules:
        raise NoAttention("the tower has no ACM")
    handles = [m.register_forward_pre_hook(lambda m, args, n=name: listen(n, m, args)) for name, m in modules.items()]
    try:
        tower(image_1CSS)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _relative(maps: Tensor) -> Tensor:
    """Maps over the last two dimensions, divided by their mean."""
    return maps / maps.mean((-2, -1), keepdim=True)
