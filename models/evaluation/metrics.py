"""AUROC and average precision of one finding, from one sort, for any number of weightings of its images.

Scores are floats [N], labels are :class:`~models.studies.schema.Label` codes [N]; only PRESENT and ABSENT
count, UNCERTAIN and UNMENTIONED images are left out. Ties are handled as in scikit-learn: a tied
positive-negative pair counts one half in AUROC, and tied scores share one threshold in average precision.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.studies.schema import Label

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def counted(labels: ArrayLike) -> NDArray[np.bool_]:
    """Which labels count: True where PRESENT or ABSENT, same shape as ``labels``.

    Raises:
        ValueError: for a code that no :class:`Label` has.
    """
    codes = np.asarray(labels)
    unknown = ~np.isin(codes, [int(code) for code in Label])
    if unknown.any():
        raise ValueError(
            f"label code {codes[unknown].flat[0]} is not known; allowed: "
            + ", ".join(f"{code.value} ({code.name})" for code in Label)
        )
    return (codes == Label.PRESENT) | (codes == Label.ABSENT)


class Ranking:
    """The order of one finding's images by score, kept so that each weighting costs no further sort.

    A weighting gives every image a non-negative weight; the plain metric has weight one everywhere, a
    bootstrap resample has the number of times the image's patient was drawn.

    Args:
        scores: finite floats [n].
        positive: booleans [n].
        rows: ints [n], which row of a weight array belongs to each image (say, its patient); default
        ``range(n)``.
        strata: ints [n]; when given, only positive-negative pairs of the same stratum are compared by AUROC.

    Raises:
        ValueError: for a score that is not finite, or shapes that differ.
    """

    def __init__(
        self,
        scores: ArrayLike,
        positive: ArrayLike,
        rows: ArrayLike | None = None,
        strata: ArrayLike | None = None,
    ) -> None:
        scores = np.asarray(scores, np.float64)
        positive = np.asarray(positive, bool)
        rows = np.arange(len(scores)) if rows is None else np.asarray(rows, np.int64)
        strata = np.zeros(len(scores), np.int64) if strata is None else np.asarray(strata)
        if not (scores.shape == positive.shape == rows.shape == strata.shape) or scores.ndim != 1:
            raise ValueError(
                f"scores, positive, rows and strata must be vectors of one length, got "
                f"{scores.shape}, {positive.shape}, {rows.shape}, {strata.shape}"
            )
        require_finite(scores)
        # Dense ranks keep ties exact where stratum and score are folded into one integer key.
        levels, rank = np.unique(scores, return_inverse=True)
        names, stratum = np.unique(strata, return_inverse=True)
        width = max(len(levels), 1)
        key = stratum.astype(np.int64) * width + rank
        order = np.argsort(key, kind="stable")
        self._positive = order[positive[order]]
        self._negative = order[~positive[order]]
        keys_positive, keys_negative = key[self._positive], key[self._negative]
        self._below = np.searchsorted(keys_negative, keys_positive, "left")
        self._upto = np.searchsorted(keys_negative, keys_positive, "right")
        self._tied = bool((self._below != self._upto).any())
        edges = np.arange(len(names) + 1) * width
        self._edges_positive = np.searchsorted(keys_positive, edges)
        self._edges_negative = np.searchsorted(keys_negative, edges)
        self._first_of_tie = np.searchsorted(keys_positive, keys_positive, "left")
        self._stratified = len(names) > 1
        self._positive_rows, self._negative_rows = rows[self._positive], rows[self._negative]
        self._rows = rows

    def auroc(self, weights: ArrayLike | None = None) -> Floats:
        """Weighted AUROC per column of ``weights`` [rows, r] -> [r]; NaN where no pair can be compared."""
        return self._auroc(*self._gather(weights))

    def average_precision(self, weights: ArrayLike | None = None) -> Floats:
        """Weighted average precision per column of ``weights`` [rows, r] -> [r]; NaN without both classes.

        Raises:
            ValueError: for a ranking with several strata: precision is a property of one list.
        """
        return self._average_precision(*self._gather(weights))

    def both(self, weights: ArrayLike | None = None) -> Floats:
        """AUROC and average precision [2, r] for the price of one pass."""
        gathered = self._gather(weights)
        return np.stack([self._auroc(*gathered), self._average_precision(*gathered)])

    def _gather(self, weights: ArrayLike | None) -> tuple[Floats, Floats]:
        if weights is None:
            weights = np.ones((int(self._rows.max(initial=-1)) + 1, 1))
        weights = np.asarray(weights, np.float64)
        positive = np.take(weights, self._positive_rows, axis=0)
        negative = np.empty((len(self._negative_rows) + 1, weights.shape[1]))
        negative[0] = 0
        np.take(weights, self._negative_rows, axis=0, out=negative[1:])
        np.cumsum(negative, axis=0, out=negative)  # row k: the weight of the k lowest negatives
        return positive, negative

    def _auroc(self, positive: Floats, lower: Floats) -> Floats:
        beaten = np.einsum("ir,ir->r", positive, lower[self._below])
        if self._tied:
            beaten = (beaten + np.einsum("ir,ir->r", positive, lower[self._upto])) / 2
        pairs = np.zeros_like(beaten)
        for first, last, start, stop in zip(
            self._edges_positive[:-1],
            self._edges_positive[1:],
            self._edges_negative[:-1],
            self._edges_negative[1:],
        ):
            own = positive[first:last].sum(axis=0)
            beaten -= own * lower[start]  # `lower` counts the negatives of earlier strata too
            pairs += own * (lower[stop] - lower[start])
        return _ratio(beaten, pairs)

    def _average_precision(self, positive: Floats, lower: Floats) -> Floats:
        if self._stratified:
            raise ValueError("average precision over several strata is not defined; leave strata out")
        below = np.zeros((len(positive) + 1, positive.shape[1]))
        np.cumsum(positive, axis=0, out=below[1:])
        total, negatives = below[-1], lower[-1]
        hits = total - below[self._first_of_tie]  # positives at or above each positive's score
        listed = hits + (negatives - lower[self._below])
        # A positive of weight zero at the top of the list may have nothing above it: 0/0 counts nothing.
        precision = np.divide(hits, listed, out=np.zeros_like(hits), where=listed > 0)
        value = _ratio(np.einsum("ir,ir->r", positive, precision), total)
        return np.where(negatives > 0, value, np.nan)


def require_finite(scores: Floats) -> None:
    """Raise ValueError, with a count, for scores that are not finite."""
    bad = int((~np.isfinite(scores)).sum())
    if bad:
        raise ValueError(
            f"{bad} of {scores.size} scores are not finite; the model has diverged or its output overflowed"
        )


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties one half.

    NaN when the labels that count hold one class only.
    """
    keep = counted(labels)
    return float(Ranking(np.asarray(scores)[keep], np.asarray(labels)[keep] == Label.PRESENT).auroc()[0])


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Sum over thresholds of precision times the step in recall (no interpolation), as in scikit-learn.

    NaN when the labels that count hold one class only: with no negative it would be 1 whatever the model.
    """
    keep = counted(labels)
    positive = np.asarray(labels)[keep] == Label.PRESENT
    return float(Ranking(np.asarray(scores)[keep], positive).average_precision()[0])


def stratified_auroc(scores: ArrayLike, labels: ArrayLike, strata: ArrayLike) -> float:
    """AUROC over positive-negative pairs of the same stratum only, pooled by the number of pairs.

    Why: hospitals differ in prevalence *and* in how their images look (scanner, burned-in marks, aspect).
    Over pooled images a model that only recognises the hospital ranks the images of a high-prevalence
    hospital first and so earns a high AUROC without having seen any disease. Such a model gives one score to
    all images of a hospital: every pair within a hospital is a tie, and this metric is exactly 0.5. Each
    stratum weighs by its number of pairs (positives times negatives), so a stratum with one class only has no
    weight, and small noisy strata weigh little.

    NaN when no stratum holds both classes.
    """
    keep = counted(labels)
    positive = np.asarray(labels)[keep] == Label.PRESENT
    ranking = Ranking(np.asarray(scores)[keep], positive, strata=np.asarray(strata)[keep])
    return float(ranking.auroc()[0])


def paired_images(positive: ArrayLike, strata: ArrayLike) -> NDArray[np.bool_]:
    """Which images enter a stratified AUROC: those of strata that hold both classes. Booleans [n]."""
    positive = np.asarray(positive, bool)
    _, stratum = np.unique(np.asarray(strata), return_inverse=True)
    size = np.bincount(stratum)
    hits = np.bincount(stratum, weights=positive)
    return ((hits > 0) & (hits < size))[stratum] if len(positive) else positive
