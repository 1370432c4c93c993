"""RoLoRA (Chen et al., arXiv 2502.01755): B is trained and sent in one round, A in the next. The default for adapters.

With the other factor equal at every site, the mean of the products is the product of the mean: exact, at half the bytes,
and a sum is all that the server needs, so that it goes with secure aggregation and with noise on the update.

Rounds of a phase counted from 0: even ones train B, odd ones A; the first round (number 1) is round 0. B starts at zero,
and A has no gradient while B is zero: as long as it is, after rounds without a quorum, B goes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from models.config import config
from strategies.adapters import of_factor
from strategies.rules._adapters import OneFactor


@config
class Config:
    name: Literal["alternate"] = "alternate"

    def build(self) -> Alternate:
        return Alternate(self)


class Alternate(OneFactor):
    def train(self, number: int, current: Mapping[str, Tensor]) -> str:
        even = (number - 1) % 2 == 0
        return "B" if even or not any(bool(b.any()) for b in of_factor(current, "B").values()) else "A"
