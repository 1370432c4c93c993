"""What changes over a phase of self-training. Each is a function of the share of the phase done, so that a federation
and one machine mean the same."""

from __future__ import annotations

import math
from typing import Any

from models.objectives import Schedule


def alpha(cfg: Any, schedule: Schedule) -> float:
    """Weight of pseudo-labels: with 5 steps to a peak of 2, 0.4 in the first fifth of the phase, then 0.8 and so on."""
    if not cfg.alpha_steps:
        return cfg.alpha_peak * schedule.progress
    # A hair more, because 3/5 of 5 may be 2.9999999999999996 in binary.
    return cfg.alpha_peak * (math.floor(schedule.progress * cfg.alpha_steps + 1e-9) + 1) / cfg.alpha_steps


def momentum(cfg: Any, schedule: Schedule) -> float:
    """The teacher's inertia: a cosine from ``momentum`` to ``momentum_end``."""
    left = 0.5 * (1 + math.cos(math.pi * schedule.progress))
    return cfg.momentum_end + (cfg.momentum - cfg.momentum_end) * left


def teacher_temperature(cfg: Any, schedule: Schedule) -> float:
    """Linear from its start over its rise, then constant."""
    if cfg.teacher_temperature_start is None or schedule.progress >= cfg.teacher_temperature_rise:
        return cfg.teacher_temperature
    done = schedule.progress / cfg.teacher_temperature_rise
    return cfg.teacher_temperature_start + (cfg.teacher_temperature - cfg.teacher_temperature_start) * done
