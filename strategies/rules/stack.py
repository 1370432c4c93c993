"""FLoRA (Wang et al., arXiv 2409.05976): the sites' factors side by side are folded into the base, and everybody begins
anew with a fresh A and B = 0.

Exact; the sites' ranks may differ. The base changes, so every site receives every site's factors: the aggregator, and the
sites among each other, must be trusted. Down come rank * sites columns a round; server and sites keep every fold of the
run, because a site that was away needs them all. A that is drawn afresh is drawn by each side from the plan's seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from models.config import config
from strategies.adapters import of_factor
from strategies.rules._adapters import AdapterRule, Setting, trusted
from strategies.rules._base import Update
from strategies.rules._lowrank import layers


@config
class Config:
    """trusted_aggregator: the sites agreed that the server and the other sites see their own factors."""

    name: Literal["stack"] = "stack"
    trusted_aggregator: bool = False

    def check(self) -> None:
        trusted(self, "sends every site's factors to all sites")

    def build(self) -> Stack:
        return Stack(self)


class Stack(AdapterRule):
    mixed: ClassVar[bool] = True
    folds: ClassVar[bool] = True
    trusts: ClassVar[bool] = True

    @property
    def drawn(self) -> int | None:
        number = self.memory.get("drawn")
        return None if number is None else int(number)

    def begin(self, setting: Setting, current: Mapping[str, Tensor]) -> dict[str, Tensor]:
        super().begin(setting, current)
        found = layers(current)
        if any(bool(b.any()) for b in of_factor(current, "B").values()):  # what an earlier phase learnt
            whole = {n: [(self.scale(current[a].shape[0]), current[b], current[a])] for n, (a, b) in found.items()}
            self.fold = self.make_fold(whole)
        return self._afresh(current, found, 1)

    def factors(
        self,
        current: Mapping[str, Tensor],
        shares: Sequence[tuple[float, Update]],
        found: Mapping[str, tuple[str, str]],
    ) -> dict[str, Tensor]:
        self.fold = self.make_fold({layer: self.terms(shares, *names) for layer, names in found.items()})
        return self._afresh(current, found, self.drawn + 1)

    def _afresh(
        self, current: Mapping[str, Tensor], found: Mapping[str, tuple[str, str]], number: int
    ) -> dict[str, Tensor]:
        self.memory["drawn"] = torch.tensor(float(number), dtype=torch.float64)
        out = {}
        for a, b in found.values():
            out[a], out[b] = self.setting.draw(number, a, tuple(current[a].shape)), torch.zeros_like(current[b])
        return out
