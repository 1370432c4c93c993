"""Intervals and paired tests of AUROC without resampling: DeLong, DeLong & Clarke-Pearson, Biometrics 1988;44:837.

With ``clusters`` (patients), images of one patient need not be independent: the components are summed by patient, as in
Obuchowski, Biometrics 1997;53:567. With one image a patient the two agree. Components come from mid-ranks, one sort a
model (Sun & Xu, IEEE SPL 2014;21:1389), not from all pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from models.evaluation.metrics import Floats, counted, require_finite
from models.evaluation.results import Result, too_small
from models.studies.schema import Label

LEVEL = 0.95
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Comparison:
    """AUROC of a minus AUROC of b on the same images, its interval, and the two-sided p value of no difference.

    ``p`` is None where the difference has no variance, as when both rank all images alike.
    """

    difference: float
    low: float
    high: float
    p: float | None


def aurocs(scores: ArrayLike, positive: ArrayLike, clusters: ArrayLike | None = None) -> tuple[Floats, Floats]:
    """AUROC of each of M models [M] and their covariance matrix [M,M], from scores [M,n] on the same n images.

    Raises:
        ValueError: scores that are not finite, shapes that differ, or fewer than two images (with clusters, patients)
            of a class, which have no variance.
    """
    scores = np.atleast_2d(np.asarray(scores, np.float64))
    positive = np.asarray(positive, bool)
    groups = np.arange(len(positive)) if clusters is None else np.asarray(clusters)
    if scores.ndim != 2 or scores.shape[1:] != positive.shape or groups.shape != positive.shape:
        raise ValueError(f"scores {scores.shape}, positive {positive.shape} and clusters {groups.shape} do not fit")
    require_finite(scores)
    wins, losses = zip(*(_components(row, positive) for row in scores))
    return _covariance(np.stack(wins), np.stack(losses), groups[positive], groups[~positive])


def _components(scores: Floats, positive: np.ndarray) -> tuple[Floats, Floats]:
    """For each positive the share of negatives below it, and for each negative the share of positives above it."""
    x, y = scores[positive], scores[~positive]
    if not len(x) or not len(y):
        raise ValueError("one class has no image: there is no AUROC")
    together = _midranks(np.concatenate([x, y]))
    return (together[: len(x)] - _midranks(x)) / len(y), 1 - (together[len(x) :] - _midranks(y)) / len(x)


def _midranks(values: Floats) -> Floats:
    """Ranks from 1, ties sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _covariance(wins: Floats, losses: Floats, of_wins: np.ndarray, of_losses: np.ndarray) -> tuple[Floats, Floats]:
    """AUROC and its covariance from components of positives [M,m] and negatives [M,n] and their clusters."""
    (_, m), (_, n) = wins.shape, losses.shape
    value = wins.mean(axis=1)
    names = np.unique(np.concatenate([of_wins, of_losses]))
    ten = _sums(wins - value[:, None], np.searchsorted(names, of_wins), len(names))
    one = _sums(losses - value[:, None], np.searchsorted(names, of_losses), len(names))
    with_ten, with_one, all_of_them = len(np.unique(of_wins)), len(np.unique(of_losses)), len(names)
    if min(with_ten, with_one) < 2:
        raise ValueError("fewer than two patients of one class: the AUROC has no variance to estimate")
    s10 = with_ten / ((with_ten - 1) * m) * (ten @ ten.T)
    s01 = with_one / ((with_one - 1) * n) * (one @ one.T)
    s11 = all_of_them / (all_of_them - 1) * (ten @ one.T)
    return value, s10 / m + s01 / n + (s11 + s11.T) / (m * n)


def _sums(values: Floats, groups: np.ndarray, count: int) -> Floats:
    """Sum of [M,k] by group, [M,count]."""
    return np.stack([np.bincount(groups, weights=row, minlength=count) for row in values])


def interval(value: float, variance: float, level: float = LEVEL) -> tuple[float, float]:
    """Normal interval of an AUROC, cut at 0 and 1."""
    reach = _NORMAL.inv_cdf(0.5 + level / 2) * math.sqrt(max(variance, 0.0))
    return max(0.0, value - reach), min(1.0, value + reach)


def compare(
    a: ArrayLike, b: ArrayLike, positive: ArrayLike, clusters: ArrayLike | None = None, level: float = LEVEL
) -> Comparison:
    """Model ``a`` [n] against model ``b`` [n]; see :func:`aurocs` for what is refused."""
    value, covariance = aurocs(np.stack([np.asarray(a), np.asarray(b)]), positive, clusters)
    difference = float(value[0] - value[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if variance <= 1e-14:  # what rounding leaves of zero
        return Comparison(difference, difference, difference, None)
    deviation = math.sqrt(variance)
    reach = _NORMAL.inv_cdf(0.5 + level / 2) * deviation
    p = math.erfc(abs(difference) / deviation / math.sqrt(2))
    return Comparison(difference, difference - reach, difference + reach, p)


def delong_rows(
    scores: ArrayLike,
    labels: ArrayLike,
    patients: ArrayLike,
    findings: Sequence[str],
    reference: ArrayLike | None = None,
    min_cell: int = 0,
) -> list[Result]:
    """``auroc_delong`` of each finding [N,F] and, against a ``reference`` model's scores on the same images,
    ``auroc_gain`` with its interval and ``auroc_gain_p``. Clustered by patient.

    A finding with fewer than ``min_cell`` patients in a class, or fewer than two, is left out. There is no mean over
    findings: their AUROCs rest on the same images, and the interval of the mean is the bootstrap's.
    """
    scores, labels, patients = np.asarray(scores, np.float64), np.asarray(labels), np.asarray(patients)
    rows: list[Result] = []
    for column, finding in enumerate(findings):
        keep = counted(labels[:, column])
        positive = labels[keep, column] == Label.PRESENT
        people = patients[keep]
        persons = (len(np.unique(people[positive])), len(np.unique(people[~positive])))
        if min(persons) < 2 or too_small(*persons, min_cell):
            continue
        own = scores[keep, column]
        if not np.isfinite(own).all():
            continue
        support = {
            "n": len(positive),
            "positives": int(positive.sum()),
            "positive_patients": persons[0],
            "negative_patients": persons[1],
        }
        value, covariance = aurocs(own, positive, people)
        low, high = interval(float(value[0]), float(covariance[0, 0]))
        rows.append(Result("auroc_delong", finding, float(value[0]), low, high, **support))
        if reference is None:
            continue
        found = compare(own, np.asarray(reference, np.float64)[keep, column], positive, people)
        rows.append(Result("auroc_gain", finding, found.difference, found.low, found.high, **support))
        reason = "both models rank all images alike" if found.p is None else None
        rows.append(Result("auroc_gain_p", finding, found.p, **support, reason=reason))
    return rows


DELONG = ("auroc_delong", "auroc_gain", "auroc_gain_p")
