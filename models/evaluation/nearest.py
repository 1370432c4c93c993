"""Clinical similarity of the nearest report: what an encoder holds alike, does it say the same of the patient.

Each report looks for its nearest among the others. Itself and its copies are left out: any encoder finds those. The pair
is then scored: always by the labels that our labeller reads in both, and by other scorers where they are installed
(``clinical``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from models.evaluation.bootstrap import FEWEST, WeightedMean, interval, replicate
from models.evaluation.metrics import Floats, Ints
from models.evaluation.protocol import REPLICATES
from models.evaluation.results import MACRO, Result, hide
from models.evaluation.retrieval import unit
from models.language.canonical import canonical_keys
from models.language.labeller import label_text
from models.studies.schema import CHEXPERT, Label

LABEL_F1 = "nearest_label_f1"
PairScorer = Callable[[Sequence[str], Sequence[str]], ArrayLike]
"""(texts, references) to a score in [0, 1] of each pair, [n]."""
_BLOCK = 1024


def nearest(vectors: ArrayLike, keys: ArrayLike) -> Ints:
    """Number of the nearest other text of each, int64 [n], by cosine; -1 where all others are copies. Of equal cosines the
    one that stands first.

    Args:
        vectors: [n,d]. keys: [n], equal for copies.

    Raises:
        ValueError: shapes that do not fit, or numbers that are not finite.
    """
    rows, known = unit(vectors), np.asarray(keys)
    if known.shape != (len(rows),):
        raise ValueError(f"vectors {rows.shape} and keys {known.shape}: must be [n,d] and [n]")
    found = np.full(len(rows), -1, dtype=np.int64)
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        scores = np.where(known[part, None] == known[None], -np.inf, rows[part] @ rows.T)
        best = scores.argmax(axis=1) if len(rows) else np.zeros(0, np.int64)
        alone = ~np.isfinite(scores).any(axis=1)
        found[part] = np.where(alone, -1, best)
    return found


def label_counts(texts: Sequence[str], others: Sequence[str]) -> Ints:
    """[n,3]: classes present in both, in the other alone, and in the text alone, over the 14 CheXpert classes."""
    present = {text: frozenset(_present(text)) for text in {*texts, *others}}
    pairs = [(present[a], present[b]) for a, b in zip(texts, others)]
    return np.array([(len(a & b), len(b - a), len(a - b)) for a, b in pairs], dtype=np.int64).reshape(-1, 3)


def _present(text: str) -> list[str]:
    labels = label_text(text)
    return [name for name in CHEXPERT if labels[name] is Label.PRESENT]


class _MicroF1:
    """2 tp / (2 tp + fp + fn) under patient weights, [1, r]; NaN where no class is present in any pair."""

    def __init__(self, counts: Ints, rows: Ints, patients: int) -> None:
        hit, extra, missed = (np.bincount(rows, counts[:, k], patients) for k in range(3))
        self._top, self._bottom = 2 * hit, 2 * hit + extra + missed

    def __call__(self, weights: Floats) -> Floats:
        top, bottom = self._top @ weights, self._bottom @ weights
        return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)[None]


def nearest_results(
    vectors: ArrayLike,
    texts: Sequence[str],
    patients: ArrayLike,
    scorers: dict[str, PairScorer] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    min_cell: int = 0,
) -> list[Result]:
    """Micro F1 of labels between each text and its nearest other, and the mean of every scorer, with patient intervals.

    Args:
        vectors: [n,d] of ``texts``. patients: int [n].
        scorers: by name, from ``clinical``; metric ``nearest_<name>``.
        min_cell: values from fewer patients are hidden.
    """
    of = nearest(vectors, canonical_keys(texts))
    used = np.flatnonzero(of >= 0)
    mine, theirs = [texts[i] for i in used], [texts[of[i]] for i in used]
    people, rows = np.unique(np.asarray(patients)[used], return_inverse=True)
    names, statistics = [LABEL_F1], [_MicroF1(label_counts(mine, theirs), rows, len(people))]
    for name, score in (scorers or {}).items():
        values = np.asarray(score(mine, theirs), dtype=np.float64)
        if values.shape != (len(mine),):
            raise ValueError(f"scorer {name!r}: gave {values.shape} scores for {len(mine)} pairs")
        names.append(f"nearest_{name}")
        statistics.append(WeightedMean(values, rows, len(people)))
    blank = [Result(name, MACRO, None, n=len(used)) for name in names]
    if len(people) < max(min_cell, 1):
        return [hide(row, min_cell) for row in blank]
    points = [float(statistic(np.ones((len(people), 1)))[0, 0]) for statistic in statistics]
    drawn = replicate(statistics, len(people), replicates if len(people) >= FEWEST else 0, seed)
    return [_row(row, point, found) for row, point, found in zip(blank, points, drawn)]


def _row(blank: Result, value: float, drawn: Floats) -> Result:
    found = interval(drawn[0] if drawn.size else np.empty(0))
    if not np.isfinite(value):
        return Result(blank.metric, MACRO, None, n=blank.n, reason="no class is present in any report")
    return Result(
        blank.metric, MACRO, value, found.low, found.high, n=blank.n, reason=found.reason, left_out=found.left_out
    )
