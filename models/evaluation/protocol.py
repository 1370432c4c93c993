"""The shared protocol of the `diagnosis` benchmark: probabilities in, results with intervals out.

Every cohort (federated, one site alone, pooled) and every place (a site, the server) is judged by these
functions, on equal resamples for equal patients and seed. Nothing here runs a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.evaluation.bootstrap import FEWEST, Statistic, WeightedMean, interval, mean_replicates, replicate
from models.evaluation.calibration import (
    calibration_error_floor,
    expected_calibration_error,
    require_probabilities,
)
from models.evaluation.metrics import Floats, Ints, Ranking, counted, paired_images
from models.evaluation.results import MACRO, Result, hide, too_small
from models.studies.schema import Label

METRICS = ("auroc", "auroc_within_site", "average_precision", "ece", "ece_floor", "brier")
REPLICATES = 1000


def evaluate(
    probabilities: ArrayLike,
    labels: ArrayLike,
    patients: ArrayLike,
    findings: Sequence[str],
    strata: ArrayLike | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    min_cell: int = 0,
) -> list[Result]:
    """Every metric for every finding, then its mean over findings (``macro``).

    Args:
        probabilities: floats in [0, 1], [N, F], or [M, N, F] for M models: the value is then the mean of the
            metric over models (the model that a hospital has on average when each trains alone), not the
            metric of the mean probability. A finding has a value only if all models have one.
        labels: Label codes [N, F]; a finding is judged on its PRESENT and ABSENT images.
        patients: ints [N]; one code per person, also across sites: the unit that is resampled.
        strata: site of each image, ints [N]. With more than one site, adds `auroc_within_site`.
        replicates: bootstrap resamples; 0 for no intervals.
        min_cell: findings with fewer patients than this in either class are hidden and kept out of the mean.

    Returns:
        Rows by metric, in the order of ``METRICS``, findings in the order given, macro last. A value that
        cannot be computed is None with a reason. A macro row whose mean leaves findings out says so in its
        reason. `ece` has no interval; `ece_floor` is what it would be by chance for a calibrated model.

    Raises:
        ValueError: shapes that do not fit, an unknown label code, a finite value outside [0, 1].
    """
    data = _Data.of(probabilities, labels, patients, findings, strata)
    cells = [_Cell.of(data, f) for f in range(len(findings))]
    shown = [cell for cell in cells if not too_small(*cell.patients, min_cell)]
    estimates = _estimates(data, shown, replicates, seed)
    metrics = [m for m in METRICS if m != "auroc_within_site" or data.several_sites]
    rows: list[Result] = []
    for metric in metrics:
        own = {
            e.cell.index: e for e in estimates if e.metric == metric and not too_small(*e.support.patients, min_cell)
        }
        for cell in cells:
            name = findings[cell.index]
            rows.append(own[cell.index].result(name) if cell.index in own else hide(_blank(metric, name), min_cell))
        rows.append(_macro(metric, list(own.values()), len(findings)))
    return rows


def paired_difference(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    labels: ArrayLike,
    patients: ArrayLike,
    findings: Sequence[str],
    strata: ArrayLike | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    min_cell: int = 0,
) -> list[Result]:
    """AUROC of ``scores_a`` minus AUROC of ``scores_b`` on the same images and the same resamples.

    What varies with the draw of patients varies in both and cancels, so the interval is that of the
    difference: much narrower than two intervals side by side suggest.

    Args:
        scores_a, scores_b: finite floats [N, F], or [M, N, F] for the mean AUROC over M models.
        labels, patients, findings, replicates, seed, min_cell: as in :func:`evaluate`.
        strata: site of each image; when given, the difference is of `auroc_within_site`.

    Returns:
        One row per finding and a macro row; metric `auroc_difference`, or `auroc_within_site_difference`.
    """
    a = _Data.of(scores_a, labels, patients, findings, strata)
    b = _Data.of(scores_b, labels, patients, findings, strata)
    metric = "auroc_difference" if strata is None else "auroc_within_site_difference"
    cells = [_Cell.of(a, f) for f in range(len(findings))]
    estimates = {}
    for cell in cells:
        support = _Support.of(a, cell, within=strata is not None)
        if too_small(*support.patients, min_cell):
            continue
        reason = support.missing or a.not_finite(cell) or b.not_finite(cell)
        statistic = None if reason else _Difference(_rankings(a, cell, strata), _rankings(b, cell, strata))
        estimates[cell.index] = _Estimate(metric, cell, support, reason, statistic)
    _fill(list(estimates.values()), a.height, replicates, seed)
    rows = [
        estimates[c.index].result(findings[c.index])
        if c.index in estimates
        else hide(_blank(metric, findings[c.index]), min_cell)
        for c in cells
    ]
    return [*rows, _macro(metric, list(estimates.values()), len(findings))]


@dataclass(frozen=True)
class _Data:
    """Checked inputs; scores [M, N, F], patients as dense codes below ``height``."""

    scores: Floats
    labels: NDArray[np.integer]
    counted: NDArray[np.bool_]
    patients: Ints
    height: int
    strata: Ints | None

    @classmethod
    def of(cls, scores, labels, patients, findings, strata) -> _Data:
        scores = np.asarray(scores, np.float64)
        labels = np.asarray(labels)
        patients = np.asarray(patients)
        stacked = scores[None] if scores.ndim == 2 else scores
        n, f = len(patients), len(findings)
        if stacked.shape[1:] != (n, f) or labels.shape != (n, f) or stacked.ndim != 3 or not len(stacked):
            raise ValueError(
                f"{n} patients and {f} findings need scores [{n}, {f}] (or [models, {n}, {f}]) and labels "
                f"[{n}, {f}]; got {scores.shape} and {labels.shape}"
            )
        if strata is not None and np.shape(strata) != (n,):
            raise ValueError(f"strata must give one site for each of {n} images, got shape {np.shape(strata)}")
        if len(set(findings)) != f or MACRO in findings:
            raise ValueError(f"findings must differ and none may be called {MACRO!r}, got {list(findings)}")
        people, codes = np.unique(patients, return_inverse=True)
        sites = None if strata is None else np.asarray(strata)
        return cls(stacked, labels, counted(labels), codes.astype(np.int64), len(people), sites)

    @property
    def several_sites(self) -> bool:
        return self.strata is not None and len(np.unique(self.strata)) > 1

    def not_finite(self, cell: _Cell) -> str | None:
        values = self.scores[:, cell.images, cell.index]
        bad = int((~np.isfinite(values)).sum())
        return f"{bad} of {values.size} scores are not finite" if bad else None


@dataclass(frozen=True)
class _Cell:
    """The images [n] that count for one finding, which of them are positive, and persons per class."""

    index: int
    images: Ints
    positive: NDArray[np.bool_]
    patients: tuple[int, int]

    @classmethod
    def of(cls, data: _Data, index: int) -> _Cell:
        images = np.flatnonzero(data.counted[:, index])
        positive = data.labels[images, index] == Label.PRESENT
        return cls(index, images, positive, _persons(data.patients[images], positive))


def _persons(patients: Ints, positive: NDArray[np.bool_]) -> tuple[int, int]:
    return len(np.unique(patients[positive])), len(np.unique(patients[~positive]))


@dataclass(frozen=True)
class _Support:
    """What a value rests on: images [n] of ``cell`` that enter, persons per class, and what is missing."""

    enters: NDArray[np.bool_]
    positives: int
    patients: tuple[int, int]
    missing: str | None

    @classmethod
    def of(cls, data: _Data, cell: _Cell, within: bool) -> _Support:
        positive = cell.positive
        enters = np.ones(len(positive), bool)
        missing = None
        if not len(positive):
            missing = "no labelled image"
        elif not positive.any():
            missing = "no positive"
        elif positive.all():
            missing = "no negative"
        elif within:
            enters = paired_images(positive, data.strata[cell.images])
            missing = None if enters.any() else "no site with both a positive and a negative"
        persons = _persons(data.patients[cell.images[enters]], positive[enters])
        return cls(enters, int(positive[enters].sum()), persons, missing)


@dataclass
class _Estimate:
    """One metric of one cell on its way to a Result; ``row`` picks it from what ``statistic`` yields."""

    metric: str
    cell: _Cell
    support: _Support
    reason: str | None
    statistic: Statistic | None
    row: int = 0
    value: float | None = None
    replicates: Floats | None = None

    def result(self, finding: str) -> Result:
        support = self.support
        found, reason = None, self.reason
        if self.value is not None and self.replicates is not None and self.replicates.size:
            found = interval(self.replicates)
            reason = found.reason
            if self._too_few():
                found, reason = None, f"no interval: fewer than {FEWEST} patients in one class"
        return Result(
            metric=self.metric,
            finding=finding,
            value=self.value,
            low=found.low if found else None,
            high=found.high if found else None,
            n=int(support.enters.sum()),
            positives=support.positives,
            positive_patients=support.patients[0],
            negative_patients=support.patients[1],
            reason=reason,
            left_out=found.left_out if found else 0,
        )

    def _too_few(self) -> bool:
        if self.metric == "brier":
            return sum(self.support.patients) < FEWEST
        return min(self.support.patients) < FEWEST


class _Mean:
    """Mean over models of statistics that yield [k, r]."""

    def __init__(self, parts: Sequence[Statistic]) -> None:
        self._parts = parts

    def __call__(self, weights: Floats) -> Floats:
        return sum(part(weights) for part in self._parts) / len(self._parts)


class _Difference:
    """AUROC of one side minus the other, [1, r]."""

    def __init__(self, a: Sequence[Ranking], b: Sequence[Ranking]) -> None:
        self._a = _Mean([r.auroc for r in a])
        self._b = _Mean([r.auroc for r in b])

    def __call__(self, weights: Floats) -> Floats:
        return (self._a(weights) - self._b(weights))[None]


def _rankings(data: _Data, cell: _Cell, strata: ArrayLike | None) -> list[Ranking]:
    rows = data.patients[cell.images]
    sites = None if strata is None else np.asarray(strata)[cell.images]
    return [Ranking(s[cell.images, cell.index], cell.positive, rows, sites) for s in data.scores]


def _estimates(data: _Data, cells: Sequence[_Cell], replicates: int, seed: int) -> list[_Estimate]:
    made: list[_Estimate] = []
    for cell in cells:
        whole = _Support.of(data, cell, within=False)
        broken = data.not_finite(cell)
        reason = whole.missing or broken
        rank = None if reason else _Mean([r.both for r in _rankings(data, cell, None)])
        made.append(_Estimate("auroc", cell, whole, reason, rank, 0))
        made.append(_Estimate("average_precision", cell, whole, reason, rank, 1))
        made += _calibration(data, cell, whole, broken)
        if data.several_sites:
            inside = _Support.of(data, cell, within=True)
            reason = inside.missing or broken
            rank = None if reason else _Mean([r.auroc for r in _rankings(data, cell, data.strata)])
            made.append(_Estimate("auroc_within_site", cell, inside, reason, rank))
    _fill(made, data.height, replicates, seed)
    return made


def _calibration(data: _Data, cell: _Cell, support: _Support, broken: str | None) -> list[_Estimate]:
    reason = broken if len(cell.images) else support.missing
    if reason:
        return [_Estimate(m, cell, support, reason, None) for m in ("ece", "ece_floor", "brier")]
    labels = data.labels[cell.images, cell.index]
    models = [require_probabilities(s[cell.images, cell.index]) for s in data.scores]
    rows = data.patients[cell.images]
    square = _Mean([WeightedMean((p - cell.positive) ** 2, rows, data.height) for p in models])
    error = float(np.mean([expected_calibration_error(p, labels) for p in models]))
    floor = float(np.mean([calibration_error_floor(p, labels) for p in models]))
    return [
        _Estimate("ece", cell, support, None, None, value=error),
        _Estimate("ece_floor", cell, support, None, None, value=floor),
        _Estimate("brier", cell, support, None, square),
    ]


def _fill(estimates: Sequence[_Estimate], height: int, replicates: int, seed: int) -> None:
    """Compute value and replicates of every estimate; a statistic that several share runs once."""
    distinct = {id(e.statistic): e.statistic for e in estimates if e.statistic is not None}
    points = {key: np.atleast_2d(s(np.ones((height, 1)))) for key, s in distinct.items()}
    drawn = dict(zip(distinct, replicate(list(distinct.values()), height, replicates, seed)))
    for e in estimates:
        if e.statistic is not None:
            e.value = float(points[id(e.statistic)][e.row, 0])
            found = drawn[id(e.statistic)]
            e.replicates = found[e.row] if found.size else None


def _macro(metric: str, estimates: Sequence[_Estimate], asked: int) -> Result:
    """Mean over the findings that have a value, with the interval of that mean on the shared resamples."""
    used = [e for e in estimates if e.value is not None]
    if not used:
        return Result(metric, MACRO, None, n=0, positives=0, reason="no finding has a value")
    points = np.array([e.value for e in used])
    images = np.unique(np.concatenate([e.cell.images[e.support.enters] for e in used]))
    reason = None if len(used) == asked else f"mean of {len(used)} of {asked} findings"
    found = None
    if all(e.replicates is not None for e in used):
        found = interval(mean_replicates(np.stack([e.replicates for e in used]), points))
        reason = "; ".join(r for r in (reason, found.reason) if r) or None
    return Result(
        metric=metric,
        finding=MACRO,
        value=float(points.mean()),
        low=found.low if found else None,
        high=found.high if found else None,
        n=len(images),
        positives=sum(e.support.positives for e in used),
        reason=reason,
        left_out=found.left_out if found else 0,
    )


def _blank(metric: str, finding: str) -> Result:
    return Result(metric, finding, None)
