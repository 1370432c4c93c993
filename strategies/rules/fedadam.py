"""FedAdam (Reddi et al., arXiv 2003.00295): v = b2 * v + (1 - b2) * delta^2."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from models.config import config
from strategies.rules import _adaptive


@config
class Config:
    name: Literal["fedadam"] = "fedadam"
    lr: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def check(self) -> None:
        _adaptive.check(self)

    def build(self) -> FedAdam:
        return FedAdam(self)


class FedAdam(_adaptive.Adaptive):
    def second(self, v: Tensor, squared: Tensor) -> Tensor:
        return self.cfg.beta2 * v + (1 - self.cfg.beta2) * squared
