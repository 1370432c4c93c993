"""Federated averaging (McMahan et al., arXiv 1602.05629): the mean of the sites' models by number of examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor

from models.config import config
from strategies.rules._base import Rule, Update, as_reference, weighted_mean


@config
class Config:
    name: Literal["mean"] = "mean"

    def build(self) -> Mean:
        return Mean(self)


class Mean(Rule):
    def combine(self, current: Mapping[str, Tensor], updates: Sequence[Update]) -> dict[str, Tensor]:
        return as_reference(weighted_mean(current, updates), current)
