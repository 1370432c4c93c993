"""Report retrieval: does the right text come out on top when a text looks for its own in a bank.

A hit is any text of the bank that equals the right one, blanks and letter case aside: normal reports repeat to the
letter, and a copy is no mistake. A bank of merged copies keeps R@k from being filled with one text k times.

Ties count by their expected rank: a tied right answer hits with the chance that it stands among the first k when all
that tie are put in random order. An encoder that gives every text the same vector so scores k in the size of the bank,
neither 0 nor 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.evaluation.metrics import Floats, Ints

KS = (1, 5, 10)
TIE = 1e-6
"""Cosines closer than this are equal: about what single precision leaves of one."""
_BLOCK = 1024


def unit(vectors: ArrayLike, name: str = "vectors") -> Floats:
    """Rows [n,d] as float64 of length 1; a zero row stays zero, and is like nothing.

    Raises:
        ValueError: not a matrix, or a number in it that is not finite.
    """
    rows = np.asarray(vectors, dtype=np.float64)
    if rows.ndim != 2:
        raise ValueError(f"{name}: shape {rows.shape}; must be [texts, width]")
    if not np.isfinite(rows).all():
        broken = int((~np.isfinite(rows)).any(axis=1).sum())
        raise ValueError(f"{name}: {broken} of {len(rows)} rows hold a number that is not finite")
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)


def hits(
    queries: ArrayLike, bank: ArrayLike, right: ArrayLike, keys: ArrayLike | None = None, ks: Sequence[int] = KS
) -> Floats:
    """Chance in [0, 1] that the first k of the bank hold a right answer, float64 [Q, len(ks)], by cosine.

    Args:
        queries: vectors [Q,d]. bank: vectors [M,d].
        right: int key of each query's right answer [Q].
        keys: int key of each text of the bank [M]; None for its number, so that ``right`` names one text.

    Raises:
        ValueError: shapes that do not fit, a k below 1, or a query whose right answer is not in the bank.
    """
    q, b = unit(queries, "queries"), unit(bank, "bank")
    wanted = np.asarray(right)
    known = np.arange(len(b)) if keys is None else np.asarray(keys)
    if q.shape[1] != b.shape[1] or wanted.shape != (len(q),) or known.shape != (len(b),):
        raise ValueError(
            f"queries {q.shape}, bank {b.shape}, right {wanted.shape}, keys {known.shape}: must be [Q,d], [M,d], [Q], [M]"
        )
    if min(ks) < 1:
        raise ValueError(f"ks {list(ks)}: at least 1 each")
    absent = ~np.isin(wanted, known)
    if absent.any():
        raise ValueError(f"the right answer of {int(absent.sum())} of {len(q)} queries is not in the bank")
    found = np.empty((len(q), len(ks)))
    for start in range(0, len(q), _BLOCK):
        part = slice(start, start + _BLOCK)
        found[part] = _chances(q[part] @ b.T, known[None] == wanted[part, None], ks)
    return found


def _chances(scores: Floats, right: NDArray[np.bool_], ks: Sequence[int]) -> Floats:
    best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    above = (scores > best + TIE).sum(axis=1)
    level = np.abs(scores - best) <= TIE
    tied, wrong = (level & right).sum(axis=1), (level & ~right).sum(axis=1)
    # Of the first k places, those not taken from above are drawn from all that tie, without putting back.
    missed, at = np.ones(len(scores)), {}
    drawn = np.zeros(len(scores))
    for k in range(1, max(ks) + 1):
        free = (k > above) & (drawn < tied + wrong)
        chance = np.clip(wrong - drawn, 0, None) / np.maximum(tied + wrong - drawn, 1)
        missed = np.where(free, missed * chance, missed)
        drawn = drawn + free
        at[k] = 1.0 - missed
    return np.stack([at[k] for k in ks], axis=1)


def merged(keys: ArrayLike) -> Ints:
    """Numbers of the texts that stay when copies are merged: the first of each key, ascending."""
    return np.sort(np.unique(np.asarray(keys), return_index=True)[1])
