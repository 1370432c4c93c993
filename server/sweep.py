"""Several runs over one value of their plans: how a score falls with wrong labels, or with label skew over the sites.

fedcxr-server curves runs/* --by simulation.corrupt_labels --out curves.html
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.report.curves import MEAN_OF_LOCAL, legend
from server.report.html import Markup, interval, join, table, tag, three
from server.report.page import document
from server.rundata import COHORTS, MACRO, Cell, RunData, number, read_run
from server.svg import Point, Series, line_chart, span

LOG_OVER = 20.0
"""Largest over smallest value from which the axis counts in powers."""

BESIDE = ("name", "seed", "simulation.partition.seed")
"""Keys of a plan in which runs may differ and still be of one curve."""


class SweepError(ValueError):
    """Runs that make no curve. The text says which and why."""


@dataclass(frozen=True)
class Spot:
    """A score at one value ``x`` of the key; of several runs (seeds) the mean, from the lowest to the highest."""

    x: float
    cohort: str
    cell: Cell


@dataclass(frozen=True)
class Sweep:
    """A curve for each cohort over the plan's key ``by``. ``differ``: other keys in which the runs' plans differ."""

    by: str
    spots: tuple[Spot, ...]
    runs: Mapping[float, int]
    where: str
    differ: tuple[str, ...]

    def curve(self, cohort: str) -> list[Spot]:
        return [spot for spot in self.spots if spot.cohort == cohort]

    @property
    def cohorts(self) -> list[str]:
        return [c for c in COHORTS if self.curve(c)]


def sweep(folders: Sequence[Path], by: str, metric: str = "auroc", finding: str = MACRO) -> Sweep:
    """Read ``metric`` of complete runs, by the dotted key ``by`` of their plans.

    Raises:
        SweepError: a run that is not complete, or whose plan has no number at that key; no score to draw.
    """
    runs = [read_run(folder) for folder in folders]
    if not runs:
        raise SweepError("no run given; give the folders of two or more")
    at: dict[float, list[RunData]] = {}
    for run in runs:
        if run.status != "completed":
            raise SweepError(f"{run.path.name}: {run.status}; a curve is of completed runs")
        at.setdefault(_value(run, by), []).append(run)
    spots = [
        Spot(x, cohort, _together([run.overall(cohort, metric, finding) for run in of_x]))
        for x, of_x in sorted(at.items())
        for cohort in COHORTS
    ]
    spots = [spot for spot in spots if spot.cell.value is not None]
    if not spots:
        raise SweepError(f"no value of {by} has a {metric} of {finding!r} in all of its runs")
    differ = _differing([dict(_flat(run.run.get("config"))) for run in runs], {by, *BESIDE})
    counts = {x: len(of_x) for x, of_x in sorted(at.items())}
    return Sweep(by, tuple(spots), counts, runs[0].where, differ)


def _value(run: RunData, by: str) -> float:
    found = dict(_flat(run.run.get("config")))
    value = number(found.get(by))
    if value is None:
        near = sorted(key for key in found if key.split(".")[-1] == by.split(".")[-1])
        hint = f"; there is {', '.join(near)}" if near else ""
        raise SweepError(f"{run.path.name}: its plan has no number at {by!r} (it has {found.get(by)!r}){hint}")
    return value


def _flat(values: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping | list):
        pairs = values.items() if isinstance(values, Mapping) else enumerate(values)
        for key, value in pairs:
            yield from _flat(value, f"{before}{key}.")
    else:
        yield before[:-1], values


def _differing(plans: Sequence[Mapping[str, Any]], but: set[str]) -> tuple[str, ...]:
    keys = dict.fromkeys(key for plan in plans for key in plan)
    missing = object()
    return tuple(k for k in keys if k not in but and any(p.get(k, missing) != plans[0].get(k, missing) for p in plans))


def _together(cells: Sequence[Cell]) -> Cell:
    """The cell itself, or the mean of several runs if all have a value."""
    if len(cells) == 1:
        return cells[0]
    values = [cell.value for cell in cells if cell.value is not None]
    if len(values) < len(cells):
        return Cell(reason="not all runs have one")
    mean = sum(values) / len(values)
    return Cell(mean, None, None, cells[0].n, cells[0].positives, None, len(values), min(values), max(values))


def draw(found: Sweep) -> Markup:
    """The curves of a sweep, and its numbers."""
    xs = list(found.runs)
    place = math.log10 if xs[0] > 0 and xs[-1] / xs[0] >= LOG_OVER else float
    series = [
        Series(cohort, [_point(spot, place(spot.x)) for spot in found.curve(cohort)], cohort)
        for cohort in reversed(found.cohorts)
    ]
    values = [v for s in series for p in s.points for v in (p.y, p.low, p.high)]
    ends = "; ".join(f"{s.kind} from {three(s.points[0].y)} to {three(s.points[-1].y)}" for s in series)
    chart = line_chart(
        series,
        title=f"Macro AUROC over {found.by}",
        description=f"{ends}.",
        x_label=found.by + (" (axis in powers of ten)" if place is math.log10 else ""),
        y_range=span(values, (0.0, 1.0), least=0.1),
        show=lambda v: f"{v:.2f}",
        width=1000,
        height=380,
        x_ticks=[(place(x), f"{x:g}") for x in xs],
    )
    most = max(found.runs.values())
    band = "bands from the lowest to the highest run" if most > 1 else "bands are 95 % intervals over patients"
    notes = [tag("p", f"Macro AUROC {found.where}; {band}.", kind="note")]
    if found.differ:
        words = f"The plans also differ in {', '.join(found.differ)}: the curve is not of {found.by} alone."
        notes.append(tag("div", words, kind="alert"))
    at = {(spot.x, spot.cohort): spot.cell for spot in found.spots}
    rows = [[f"{x:g}", *(interval(at.get((x, c), Cell())) for c in found.cohorts), str(found.runs[x])] for x in xs]
    head = [found.by, *found.cohorts, "runs"]
    numbers = table(head, rows, f"Macro AUROC by {found.by}.", ["", *["num"] * (len(head) - 1)])
    return join([legend(MEAN_OF_LOCAL, cohorts=found.cohorts), *notes, tag("figure", Markup(chart)), numbers])


def _point(spot: Spot, x: float) -> Point:
    cell = spot.cell
    several = cell.models > 1 and cell.low is None
    low, high = (cell.least, cell.most) if several else (cell.low, cell.high)
    return Point(x, cell.value, low, high, f"{spot.cohort}, {spot.x:g}: {three(cell.value)}")


def write_page(path: Path, title: str, sweeps: Sequence[tuple[str, Sweep]]) -> None:
    """One page with a heading for each sweep; whole or not at all."""
    parts = [tag("section", tag("h2", heading), draw(found)) for heading, found in sweeps]
    partial = path.with_suffix(".part")
    partial.write_text(document(title, join([tag("header", tag("h1", title)), tag("main", *parts)])), encoding="utf-8")
    os.replace(partial, path)
