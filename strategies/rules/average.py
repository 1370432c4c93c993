"""FedIT (Zhang et al., arXiv 2305.05644): A and B are averaged each for itself, which is not the mean of the models.

Kept for comparison. The bias is in the run's metrics each round: ||mean(B) mean(A) - mean(B A)|| / ||mean(B A)||, Frobenius
norms over all layers. The factors of each site are seen for that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from torch import Tensor

from models.config import ConfigError, config
from models.evaluation.results import Result
from strategies.rules._adapters import AdapterRule, averaged
from strategies.rules._base import Update
from strategies.rules._lowrank import norm

BIAS = "lora_bias"


@config
class Config:
    """allow_biased: that the result is not the mean of the sites' models is wanted."""

    name: Literal["average"] = "average"
    allow_biased: bool = False

    def check(self) -> None:
        if not self.allow_biased:
            raise ConfigError(
                "allow_biased false: averaging A and B apart is not averaging the models; use 'alternate', or set it to "
                "true for a comparison"
            )

    def build(self) -> Average:
        return Average(self)


class Average(AdapterRule):
    trusts: ClassVar[bool] = True

    def factors(
        self,
        current: Mapping[str, Tensor],
        shares: Sequence[tuple[float, Update]],
        found: Mapping[str, tuple[str, str]],
    ) -> dict[str, Tensor]:
        means = averaged(current, shares)
        off = true = 0.0
        for a, b in found.values():
            terms = self.terms(shares, a, b)
            true += norm(terms) ** 2
            off += norm([*terms, (-self.scale(current[a].shape[0]), means[b], means[a])]) ** 2
        self.notes.append(Result(BIAS, None, math.sqrt(off / true) if true else 0.0, n=len(shares)))
        return means
