"""Texts of like length in one batch: a transformer pays for padding as for words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def buckets(lengths: Sequence[int] | np.ndarray, batch_tokens: int, batch_items: int = 512) -> list[np.ndarray]:
    """Positions (int64) of each batch, the longest texts first, so that a lack of memory shows at once.

    Every position stands in one batch. A batch of n texts whose longest has t tokens holds n * t <= ``batch_tokens``;
    a longer text stands alone.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    groups, start = [], 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        size = max(1, min(batch_tokens // longest, batch_items))
        groups.append(order[start : start + size])
        start += size
    return groups
