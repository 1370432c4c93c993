"""FedYogi (Reddi et al., arXiv 2003.00295): v = v - (1 - b2) * delta^2 * sign(v - delta^2)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from models.config import config
from strategies.rules import _adaptive


@config
class Config:
    name: Literal["fedyogi"] = "fedyogi"
    lr: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def check(self) -> None:
        _adaptive.check(self)

    def build(self) -> FedYogi:
        return FedYogi(self)


class FedYogi(_adaptive.Adaptive):
    def second(self, v: Tensor, squared: Tensor) -> Tensor:
        return v - (1 - self.cfg.beta2) * squared * (v - squared).sign()
