"""FedEx-LoRA (Singhal et al., arXiv 2410.09432): A and B are averaged, and what that misses is folded into the base.

The residual, mean(B A) - mean(B) mean(A), has rank (sites + 1) * rank and is sent as its factors, never dense. Exact with
the means as they travel. Every site receives every site's factors: the aggregator, and the sites among each other, must be
trusted. Server and sites keep every fold of the run, as with ``stack``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from torch import Tensor

from models.config import config
from strategies.rules._adapters import AdapterRule, averaged, trusted
from strategies.rules._base import Update


@config
class Config:
    """trusted_aggregator: the sites agreed that the server and the other sites see their own factors."""

    name: Literal["fedex"] = "fedex"
    trusted_aggregator: bool = False

    def check(self) -> None:
        trusted(self, "sends every site's factors to all sites")

    def build(self) -> FedEx:
        return FedEx(self)


class FedEx(AdapterRule):
    folds: ClassVar[bool] = True
    trusts: ClassVar[bool] = True

    def factors(
        self,
        current: Mapping[str, Tensor],
        shares: Sequence[tuple[float, Update]],
        found: Mapping[str, tuple[str, str]],
    ) -> dict[str, Tensor]:
        # Rounded as they will travel, or the residual would be that of other means than the sites receive.
        means = {name: value.to(self.setting.wire) for name, value in averaged(current, shares).items()}
        terms = {}
        for layer, (a, b) in found.items():
            terms[layer] = [*self.terms(shares, a, b), (-self.scale(current[a].shape[0]), means[b], means[a])]
        self.fold = self.make_fold(terms)
        return means
