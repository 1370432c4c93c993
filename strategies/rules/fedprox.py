"""FedProx (Li et al., arXiv 1812.06127): averaging, while each site's loss gains mu / 2 * ||w - w_received||^2."""

from __future__ import annotations

from typing import Literal

from models.config import ConfigError, config
from strategies.rules.mean import Mean


@config
class Config:
    name: Literal["fedprox"] = "fedprox"
    mu: float = 0.01

    def check(self) -> None:
        if self.mu <= 0:
            raise ConfigError(f"mu {self.mu}: must be positive; for no proximal term use the rule 'mean'")

    def build(self) -> FedProx:
        return FedProx(self)


class FedProx(Mean):
    def local(self) -> dict[str, float]:
        return {"proximal_mu": self.cfg.mu}
