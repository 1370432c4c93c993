"""When two texts are the same text: equal letter by letter, blanks and letter case aside."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def canonical(text: str) -> int:
    """64-bit hash of a text, blanks and letter case aside: equal for texts that say the same to the letter."""
    plain = " ".join(text.casefold().split())
    return int.from_bytes(hashlib.blake2b(plain.encode("utf-8", "replace"), digest_size=8).digest(), "big", signed=True)


def canonical_keys(texts: Sequence[str]) -> np.ndarray:
    """int64 [n] of ``canonical``."""
    return np.array([canonical(text) for text in texts], dtype=np.int64)
