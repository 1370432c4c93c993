"""FFA-LoRA (Sun et al., ICLR 2024): A stays as the plan's seed drew it, the same at every site; B is trained and sent.

Exact, as in ``alternate``; for few rounds, or where A must never change. What can be learnt is what A's rows span.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from models.config import config
from strategies.rules._adapters import OneFactor


@config
class Config:
    name: Literal["ffa"] = "ffa"

    def build(self) -> Ffa:
        return Ffa(self)


class Ffa(OneFactor):
    def train(self, number: int, current: Mapping[str, Tensor]) -> str:
        return "B"
