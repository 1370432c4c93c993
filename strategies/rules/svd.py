"""FlexLoRA (Bai et al., arXiv 2402.11505): the mean of the sites' products, cut back to the rank by SVD.

The sites' ranks may differ; a site of a lower rank receives the leading part. Not exact: what the cut discards is in the
run's metrics each round, as a share of the product's energy (squared Frobenius norm), over all layers. The server sees
every site's factors and must be trusted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from models.config import config
from models.evaluation.results import Result
from strategies.rules._adapters import AdapterRule, trusted
from strategies.rules._base import Update
from strategies.rules._lowrank import svd

DISCARDED = "lora_discarded"
_ZERO = 1e-12
"""Share of the largest singular value below which one is rounding."""


@config
class Config:
    """trusted_aggregator: the sites agreed that the server sees their own factors."""

    name: Literal["svd"] = "svd"
    trusted_aggregator: bool = False

    def check(self) -> None:
        trusted(self, "needs each site's own factors at the server")

    def build(self) -> Svd:
        return Svd(self)


class Svd(AdapterRule):
    mixed: ClassVar[bool] = True
    trusts: ClassVar[bool] = True

    def factors(
        self,
        current: Mapping[str, Tensor],
        shares: Sequence[tuple[float, Update]],
        found: Mapping[str, tuple[str, str]],
    ) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        first = next(iter(found.values()))[0]
        ranks = sorted({current[first].shape[0], *(u.tensors[first].shape[0] for _, u in shares)}, reverse=True)
        total, lost = 0.0, dict.fromkeys(ranks, 0.0)
        for a, b in found.values():
            values, left, right = svd(self.terms(shares, a, b))
            total += float(values.square().sum())
            for rank in ranks:
                lost[rank] += float(values[rank:].square().sum())
            out[a], out[b] = self._cut(values, left, right, current[a])
        for rank in ranks:
            name = DISCARDED if rank == ranks[0] else f"{DISCARDED}_rank_{rank}"
            self.notes.append(Result(name, None, lost[rank] / total if total else 0.0, n=len(shares)))
        return out

    def _cut(self, values: Tensor, left: Tensor, right: Tensor, old_a: Tensor) -> tuple[Tensor, Tensor]:
        """A and B of the model's rank, each with the root of the singular values.

        Where these are zero, B is zero and A keeps its old row: with both zero neither would ever have a gradient.
        """
        rank = old_a.shape[0]
        kept = int((values[:rank] > _ZERO * values[0]).sum()) if len(values) else 0
        root = (values[:kept] / self.scale(rank)).sqrt()
        a, b = old_a.double().clone(), torch.zeros(left.shape[0], rank, dtype=torch.float64)
        a[:kept], b[:, :kept] = root[:, None] * right[:kept], left[:, :kept] * root
        return a, b
