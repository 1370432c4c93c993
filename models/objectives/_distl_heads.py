"""Heads of self-training distillation: the classifier that travels, and the prototypes that stay at the site."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.objectives._distl_loss import wide


def class_head(width: int, hidden: Sequence[int], findings: int) -> nn.Sequential:
    """Features [B,width] to one logit a finding [B,F], with a ReLU after each of ``hidden``; none is a linear head."""
    sizes = [width, *hidden]
    layers: list[nn.Module] = []
    for inside, outside in itertools.pairwise(sizes):
        layers += [nn.Linear(inside, outside), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], findings))


class PrototypeHead(nn.Module):
    """Features [N,width] to logits over prototypes [N,K]: width, hidden, hidden, bottleneck with GELU, L2-normalised,
    then a product with the prototypes, without bias (the head of DINO, arXiv 2104.14294).

    ``unit``: the rows of the prototype matrix count by direction alone, which is weight normalisation with a gain of
    one. The matrix is an ordinary parameter and the norm divides the *logits*: no normalised copy of the largest
    matrix of the model is made, and per-example gradients see a plain linear layer.
    """

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int, unit: bool) -> None:
        super().__init__()
        self.unit = unit
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))
        nn.init.trunc_normal_(self.prototypes, std=0.02)

    def forward(self, features_ND: Tensor, frozen: bool = False) -> Tensor:
        """``frozen``: the prototypes are taken as they are, and no gradient is computed for them."""
        x = F.normalize(wide(self.mlp(features_ND)), dim=-1)
        prototypes = self.prototypes.detach() if frozen else self.prototypes
        logits = F.linear(x, prototypes)
        if self.unit:
            logits = wide(logits) / prototypes.norm(dim=1).clamp(min=1e-12)
        return logits
