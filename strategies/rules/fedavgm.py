"""FedAvgM (Hsu et al., arXiv 1909.06335): server momentum. v = beta * v + delta; x = x + lr * v."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from models.config import ConfigError, config
from strategies.rules._base import Rule, Update, as_reference, weighted_mean


@config
class Config:
    name: Literal["fedavgm"] = "fedavgm"
    lr: float = 1.0
    beta: float = 0.9

    def check(self) -> None:
        if self.lr <= 0 or not 0 <= self.beta < 1:
            raise ConfigError(f"lr {self.lr} must be positive and beta {self.beta} in [0, 1)")

    def build(self) -> FedAvgM:
        return FedAvgM(self)


class FedAvgM(Rule):
    def combine(self, current: Mapping[str, Tensor], updates: Sequence[Update]) -> dict[str, Tensor]:
        mean = weighted_mean(current, updates)
        out: dict[str, Tensor] = {}
        for name, x in current.items():
            if not x.is_floating_point():
                out[name] = x.clone()
                continue
            velocity = self.memory.get(f"v/{name}", torch.zeros(x.shape, dtype=torch.float64))
            velocity = self.cfg.beta * velocity + (mean[name] - x.double())
            self.memory[f"v/{name}"] = velocity
            out[name] = x.double() + self.cfg.lr * velocity
        return as_reference(out, current)
