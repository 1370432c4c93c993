"""Patient-disjoint splits by hash: a patient's split is the same on every machine, whoever else is there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

DEFAULT_FRACTIONS: dict[str, float] = {"train": 0.70, "validation": 0.15, "test": 0.15}


def split(
    patient_keys: Sequence[str] | np.ndarray,
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    salt: str = "fedcxr",
) -> np.ndarray:
    """Name of the split (str [N]) of each patient key.

    SHA-256 of salt and key is read as a number in [0, 1); ``fractions``, in their order, cut that interval.
    The answer for a key depends on nothing but key, fractions and salt: adding patients moves nobody. Sizes
    are therefore random around the fractions, and with few patients a split may be empty.

    Raises:
        ValueError: fractions that are negative or do not sum to 1.
    """
    values = np.array(list(fractions.values()), dtype=np.float64)
    if not len(values) or (values < 0).any() or abs(values.sum() - 1) > 1e-9:
        raise ValueError(f"fractions must be non-negative and sum to 1; got {dict(fractions)}")
    edges = np.cumsum(values)[:-1]
    positions = np.array([_position(str(key), salt) for key in patient_keys], dtype=np.float64)
    # A fraction of 0 at the end must stay empty: an edge that rounds to just under 1 would let positions slip
    # past it.
    last = int(np.flatnonzero(values)[-1])
    places = np.minimum(np.searchsorted(edges, positions, side="right"), last)
    return np.array(list(fractions), dtype=str)[places]


def _position(key: str, salt: str) -> float:
    digest = hashlib.sha256(f"{salt}\0{key}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48  # 48 bits: exact in float64
