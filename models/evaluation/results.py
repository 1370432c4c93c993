"""One number of the evaluation with its interval, its support, and its reason when there is no number."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

MACRO = "macro"
"""The finding of a mean over findings."""

COLLAPSED = "pseudo_collapsed"
ONE_CLASS = "labels_of_one_class"
TEACHER_RESET = "teacher_reset"
ALARMS = (COLLAPSED, ONE_CLASS, TEACHER_RESET)
"""Metrics of training that mark a run: reported with value 1 and a reason."""


@dataclass(frozen=True)
class Result:
    """A metric of one finding, or of none (a loss, a duration).

    ``n`` and ``positives`` count the images that entered; for a macro row, the images with at least one such
    label and the positive labels of all its findings. The patient counts decide on suppression: persons are
    protected, not images. All counts are None in a suppressed row, because a small count is itself a
    disclosure.
    """

    metric: str
    finding: str | None
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    positives: int | None = None
    positive_patients: int | None = None
    negative_patients: int | None = None
    reason: str | None = None
    left_out: int = 0

    def line(self) -> dict[str, Any]:
        """The keys that a line of ``metrics.jsonl`` takes from a result."""
        keys = ("metric", "finding", "value", "low", "high", "n", "positives", "reason")
        return {key: getattr(self, key) for key in keys}


def too_small(positive_patients: int | None, negative_patients: int | None, min_cell: int) -> bool:
    """Whether a cell may not be reported: fewer than ``min_cell`` patients in one of the classes."""
    return min_cell > 0 and min(positive_patients or 0, negative_patients or 0) < min_cell


def suppress(results: Iterable[Result], min_cell: int) -> list[Result]:
    """Hide every cell with fewer than ``min_cell`` positive or negative patients; the order is kept.

    Applies before anything leaves a site. A zero is a small cell too, so "no positive" is hidden as well. A
    macro row whose metric has a hidden finding is hidden with it: the finding could be computed from the mean
    and the others. ``evaluate(..., min_cell=...)`` does better, it takes the mean over what may be shown.
    """
    rows = list(results)
    hidden = {
        i
        for i, row in enumerate(rows)
        if row.finding != MACRO and too_small(row.positive_patients, row.negative_patients, min_cell)
    }
    metrics = {rows[i].metric for i in hidden if rows[i].value is not None}
    hidden |= {i for i, row in enumerate(rows) if row.finding == MACRO and row.metric in metrics}
    return [hide(row, min_cell) if i in hidden else row for i, row in enumerate(rows)]


def hide(row: Result, min_cell: int) -> Result:
    """``row`` without a number or a count."""
    return replace(
        row,
        value=None,
        low=None,
        high=None,
        n=None,
        positives=None,
        positive_patients=None,
        negative_patients=None,
        reason=f"suppressed: fewer than {min_cell}",
        left_out=0,
    )
