"""Lung vessels: a random tree from each hilum, the same for one person in every study and at every size."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=64)
def tree(seed: int) -> tuple[tuple[float, np.ndarray], ...]:
    """Branches as (width, lines [M, 5, 2]) per level, thick ones first.

    Coordinates: x = 0 hilum .. 1 chest wall (both sides, negative for the right), y = 0 at the hilum, -1 at
        the apex and 1 at the diaphragm; the renderer stretches them to the person's lung.
    """
    rng = np.random.default_rng(seed)
    start, heading, length, side = _roots(rng)
    levels, width = [], 0.030
    for _ in range(4):
        bend = rng.normal(0, 0.30, len(start))
        t = np.linspace(0, 1, 5)
        angle = heading[:, None] + bend[:, None] * t[None, :]
        step = (length / 4)[:, None]
        x = start[:, :1] + np.cumsum(np.cos(angle) * step, axis=1) - np.cos(angle[:, :1]) * step
        y = start[:, 1:] + np.cumsum(np.sin(angle) * step, axis=1) - np.sin(angle[:, :1]) * step
        lines = np.stack([x, y], axis=2)
        levels.append((width, lines * np.stack([side, np.ones_like(side)], axis=1)[:, None, :]))
        end, last = lines[:, -1], angle[:, -1]
        spread = rng.uniform(0.25, 0.65, len(end))
        start = np.concatenate([end, end])
        heading = np.concatenate([last - spread, last + spread * rng.uniform(0.5, 1, len(end))])
        length = np.concatenate([length, length]) * rng.uniform(0.55, 0.85, 2 * len(end))
        side = np.concatenate([side, side])
        width *= 0.62
    return tuple(levels)


def _roots(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Nine trunks a side, fanned from the apex to the base; more and longer ones go down, as in a standing
    person.
    """
    fan = np.tile(np.array([-1.35, -1.0, -0.65, -0.2, 0.2, 0.55, 0.85, 1.1, 1.35]), 2)
    heading = fan + rng.normal(0, 0.10, fan.size)
    start = np.stack([0.06 + rng.uniform(0, 0.06, fan.size), 0.16 * np.sin(fan) + rng.normal(0, 0.02, fan.size)], 1)
    length = 0.34 + 0.05 * np.sin(fan) + rng.normal(0, 0.03, fan.size)
    return start, heading, length, np.repeat([-1.0, 1.0], fan.size // 2)
