"""Adaptive server optimisation (Reddi et al., arXiv 2003.00295, algorithm 2), shared by FedAdam and FedYogi.

delta = mean(x_i) - x;  m = b1 * m + (1 - b1) * delta;  v = rule(v, delta^2);  x = x + lr * m / (sqrt(v) + tau).
There is no bias correction in the algorithm; v starts at tau^2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from models.config import ConfigError
from strategies.rules._base import Rule, Update, as_reference, weighted_mean


def check(cfg: Any) -> None:
    """The limits that FedAdam's and FedYogi's settings share."""
    for name in ("lr", "tau"):
        if getattr(cfg, name) <= 0:
            raise ConfigError(f"{name} {getattr(cfg, name)}: must be positive")
    for name in ("beta1", "beta2"):
        if not 0 <= getattr(cfg, name) < 1:
            raise ConfigError(f"{name} {getattr(cfg, name)}: must be in [0, 1)")


class Adaptive(Rule):
    """``second(v, squared)`` is what tells the members of the family apart."""

    def second(self, v: Tensor, squared: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} has no second moment")  # FedAdam and FedYogi state theirs

    def combine(self, current: Mapping[str, Tensor], updates: Sequence[Update]) -> dict[str, Tensor]:
        cfg, mean = self.cfg, weighted_mean(current, updates)
        out: dict[str, Tensor] = {}
        for name, x in current.items():
            if not x.is_floating_point():
                out[name] = x.clone()
                continue
            delta = mean[name] - x.double()
            m = self.memory.get(f"m/{name}", torch.zeros_like(delta))
            v = self.memory.get(f"v/{name}", torch.full_like(delta, cfg.tau**2))
            m = cfg.beta1 * m + (1 - cfg.beta1) * delta
            v = self.second(v, delta.square())
            self.memory[f"m/{name}"], self.memory[f"v/{name}"] = m, v
            out[name] = x.double() + cfg.lr * m / (v.sqrt() + cfg.tau)
        return as_reference(out, current)
