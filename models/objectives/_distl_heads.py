"""Heads of self-training distillation: the classifier that travels, and what views are compared through."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.objectives._distl_loss import wide

Norm = Literal["none", "batch"]


def class_head(width: int, hidden: Sequence[int], findings: int, norm: Norm = "none") -> nn.Sequential:
    """Features [B,width] to one logit a finding [B,F], with a ReLU after each of ``hidden``; none is a linear head.

    ``norm``: ``batch`` standardises the features first, without gain and bias, so that the small differences between films
    count as much as what all of them share.
    """
    sizes = [width, *hidden]
    layers: list[nn.Module] = [Standardise(width, affine=False)] if norm == "batch" else []
    for inside, outside in itertools.pairwise(sizes):
        layers += [nn.Linear(inside, outside), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], findings))


class Standardise(nn.BatchNorm1d):
    """Batch norm of features [N,width]; a batch of one film, which has no spread, is standardised as in evaluation."""

    def forward(self, features_ND: Tensor) -> Tensor:
        if not self.training or len(features_ND) > 1:
            return super().forward(features_ND)
        return F.batch_norm(
            features_ND, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


class Projection(nn.Module):
    """Features [N,width] to unit vectors [N,bottleneck]: width, hidden, hidden, bottleneck with GELU, L2-normalised.

    ``norm``: ``batch`` standardises every layer's output over the batch, the last one without gain and bias. It takes
    away what all films share, without which a small tower's vectors begin nearly alike and stay so for long.
    """

    def __init__(self, width: int, hidden: int, bottleneck: int, norm: Norm = "none") -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside, outside in ((width, hidden), (hidden, hidden)):
            layers += [nn.Linear(inside, outside), *_normed(outside, norm), nn.GELU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden, bottleneck), *_normed(bottleneck, norm, affine=False))
        if norm == "none":  # standardised layers have no scale, and small weights would only turn too fast
            for layer in self.mlp:
                if isinstance(layer, nn.Linear):
                    nn.init.trunc_normal_(layer.weight, std=0.02)
                    nn.init.zeros_(layer.bias)

    def forward(self, features_ND: Tensor) -> Tensor:
        return F.normalize(wide(self.mlp(features_ND)), dim=-1)


def _normed(width: int, norm: Norm, affine: bool = True) -> list[nn.Module]:
    return [Standardise(width, affine=affine)] if norm == "batch" else []


class PrototypeHead(Projection):
    """Features [N,width] to logits over prototypes [N,K]: a projection, then a product with the prototypes, without
    bias (the head of DINO, arXiv 2104.14294).

    ``unit``: the rows of the prototype matrix count by direction alone, which is weight normalisation with a gain of
    one. The matrix is an ordinary parameter and the norm divides the *logits*: no normalised copy of the largest
    matrix of the model is made, and per-example gradients see a plain linear layer.
    """

    def __init__(
        self, width: int, hidden: int, bottleneck: int, prototypes: int, unit: bool, norm: Norm = "none"
    ) -> None:
        super().__init__(width, hidden, bottleneck, norm)
        self.unit = unit
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))
        nn.init.trunc_normal_(self.prototypes, std=0.02)

    def forward(self, features_ND: Tensor, frozen: bool = False) -> Tensor:
        """``frozen``: the prototypes are taken as they are, and no gradient is computed for them."""
        prototypes = self.prototypes.detach() if frozen else self.prototypes
        logits = F.linear(super().forward(features_ND), prototypes)
        if self.unit:
            logits = wide(logits) / prototypes.norm(dim=1).clamp(min=1e-12)
        return logits
