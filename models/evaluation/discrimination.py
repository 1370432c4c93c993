"""Error discrimination (MC4): is the findings' own impression nearer to them than three with one error each.

Chance is 0.25. Candidates whose cosine differs by no more than ``TIE`` tie: strictly, a tie at the top is no right
answer; by shares, k that tie at the top get 1/k each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from models.evaluation.metrics import Floats
from models.evaluation.retrieval import TIE, unit


class Chosen(NamedTuple):
    """Of each question, float64 [Q].

    Attributes:
        strict: 1 where the right one is nearer than every wrong one.
        shared: 1/k where it is one of k that tie at the top.
        margin: its cosine minus the best wrong one's, in [-2, 2].
        beats: [Q,E] against each wrong one by itself: 1 nearer, 0.5 tied, 0 farther.
    """

    strict: Floats
    shared: Floats
    margin: Floats
    beats: Floats


def discriminate(queries: ArrayLike, right: ArrayLike, wrong: ArrayLike) -> Chosen:
    """Judge questions by cosine: queries [Q,d], right [Q,d], wrong [Q,E,d].

    Raises:
        ValueError: shapes that do not fit, or numbers that are not finite.
    """
    others = np.asarray(wrong, dtype=np.float64)
    q, r = unit(queries, "queries"), unit(right, "right")
    if others.ndim != 3 or q.shape != r.shape or others.shape[::2] != q.shape or not others.shape[1]:
        raise ValueError(f"queries {q.shape}, right {r.shape}, wrong {others.shape}: must be [Q,d], [Q,d], [Q,E,d]")
    w = unit(others.reshape(-1, q.shape[1]), "wrong").reshape(others.shape)
    own = (q * r).sum(axis=1)
    rivals = np.einsum("qd,qed->qe", q, w)
    best = rivals.max(axis=1, initial=-np.inf)
    top = np.maximum(best, own)
    tied = (rivals >= top[:, None] - TIE).sum(axis=1) + (own >= top - TIE)
    gap = own[:, None] - rivals
    return Chosen(
        strict=(own > best + TIE).astype(np.float64),
        shared=np.where(own >= top - TIE, 1.0 / np.maximum(tied, 1), 0.0),
        margin=own - best,
        beats=np.where(gap > TIE, 1.0, np.where(gap >= -TIE, 0.5, 0.0)),
    )
