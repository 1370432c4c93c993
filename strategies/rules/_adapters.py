"""What the rules for low-rank adapters (LoRA) share.

The model that a site trained is W + s B A with s = alpha / rank: what must be averaged is the product. Plain averaging of
the factors gives mean(B) mean(A), which is another matrix. A rule is exact if the model after the round is the weighted
mean of the sites' products. Whatever else travels (a projection, a pooling layer) is averaged by weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from models.config import ConfigError
from models.text.folding import Fold
from strategies.adapters import COMPONENT, factor_of
from strategies.rules._base import Rule, Update, as_reference, weighted_mean
from strategies.rules._lowrank import Term, layers


@dataclass(frozen=True)
class Setting:
    """What a rule must know of the run. alpha: of the adapters; wire: the type that their tensors travel in; draw: a fresh
    A called ``name`` for the start of round ``number`` of this phase."""

    alpha: float
    wire: torch.dtype
    draw: Callable[[int, str, tuple[int, int]], Tensor]


class AdapterRule(Rule):
    """``begin`` comes before the first round of a phase. After ``combine``, ``fold`` is what the base gains, if anything.

    mixed: whether the sites' ranks may differ. folds: whether the base changes. trusts: whether the server, and with some
    rules every site, sees each site's own factors where a sum would not do; such a rule cannot go with secure aggregation.
    """

    adapters: ClassVar[bool] = True
    mixed: ClassVar[bool] = False
    folds: ClassVar[bool] = False
    trusts: ClassVar[bool] = False

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self.setting: Setting | None = None
        self.fold: Fold | None = None

    def begin(self, setting: Setting, current: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take the run's setting; what of ``current`` must change before the first round. May set ``fold``."""
        self.setting = setting
        return {}

    def train(self, number: int, current: Mapping[str, Tensor]) -> str:
        """Which factors round ``number`` (from 1) trains and sends: ``"A"``, ``"B"`` or ``"AB"``."""
        return "AB"

    @property
    def drawn(self) -> int | None:
        """For the start of which round A was drawn afresh; None if it was not."""
        return None

    def combine(self, current: Mapping[str, Tensor], updates: Sequence[Update]) -> dict[str, Tensor]:
        """Next tensors. An update holds the factors that were trained, of the site's own rank."""
        self.notes, self.fold = [], None
        others = {name: value for name, value in current.items() if factor_of(name) is None}
        out = as_reference(weighted_mean(others, updates), others)
        found = layers(current)
        if not found:
            return out
        shares = _shares(updates)
        kept = {name: value.clone() for name, value in current.items() if factor_of(name) is not None}
        new = self.factors(current, shares, found)
        return out | kept | as_reference(new, {name: current[name] for name in new})

    def factors(
        self,
        current: Mapping[str, Tensor],
        shares: Sequence[tuple[float, Update]],
        found: Mapping[str, tuple[str, str]],
    ) -> dict[str, Tensor]:
        """The factors that change. shares: weight of each update, summing to 1; found: names of (A, B) by layer."""
        raise TypeError(f"{type(self).__name__} does not combine factors")  # every rule states its own

    def terms(self, shares: Sequence[tuple[float, Update]], a_name: str, b_name: str) -> list[Term]:
        """The sites' products in one layer, each with its weight and scale."""
        out = []
        for share, update in shares:
            b, a = update.tensors[b_name], update.tensors[a_name]
            out.append((share * self.scale(a.shape[0]), b, a))
        return out

    def scale(self, rank: int) -> float:
        return self.setting.alpha / rank

    def make_fold(self, terms: Mapping[str, Sequence[Term]]) -> Fold:
        """The fold of ``terms`` by layer; coefficient and rank of a term must be the same in every layer."""
        first = next(iter(terms.values()))
        tensors = {}
        for layer, parts in terms.items():
            path = layer.removeprefix(f"{COMPONENT}/")
            tensors[f"{path}.lora_A.weight"] = torch.cat([a.to(self.setting.wire) for _, _, a in parts]).contiguous()
            tensors[f"{path}.lora_B.weight"] = torch.cat([b.to(self.setting.wire) for _, b, _ in parts], 1).contiguous()
        return Fold(tuple((int(a.shape[0]), float(c)) for c, _, a in first), tensors)


class OneFactor(AdapterRule):
    """A rule whose rounds train one factor, the other being equal at every site: the mean of the products is then the
    product of the mean, exact."""

    def factors(
        self,
        current: Mapping[str, Tensor],
        shares: Sequence[tuple[float, Update]],
        found: Mapping[str, tuple[str, str]],
    ) -> dict[str, Tensor]:
        return averaged(current, shares)


def averaged(current: Mapping[str, Tensor], shares: Sequence[tuple[float, Update]]) -> dict[str, Tensor]:
    """The weighted mean of every factor that the updates hold, float64."""
    sent = {name: current[name] for name in shares[0][1].tensors if factor_of(name) is not None}
    return weighted_mean(sent, [update for _, update in shares])


def trusted(cfg: Any, sees: str) -> None:
    """Raises ConfigError unless the plan says that the aggregator is trusted."""
    if not cfg.trusted_aggregator:
        raise ConfigError(
            f"trusted_aggregator false: rule {cfg.name!r} {sees}; set it to true if the sites agreed to that, or use 'alternate'"
        )


def _shares(updates: Sequence[Update]) -> list[tuple[float, Update]]:
    ordered = sorted(updates, key=lambda u: u.site)
    total = sum(u.weight for u in ordered)
    return [(u.weight / total, u) for u in ordered]
