"""Who gained, who lost: local, federated and pooled training side by side, for one run or several."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from server.rundata import CENTRAL, COHORTS, MACRO, Cell, Gain, RunData, read_run

STYLES = {"gained": "bold blue", "lost": "bold yellow"}
SIGNS = {"gained": "▲", "lost": "▼"}
NARROW = 120
"""Columns of a screen below which intervals take a line of their own."""


@dataclass(frozen=True)
class Row:
    """A metric of one finding over one run's federation (see ``RunData.overall``)."""

    run: str
    finding: str
    n: int | None
    positives: int | None
    local: Cell
    federated: Cell
    pooled: Cell

    @property
    def cells(self) -> dict[str, Cell]:
        """By cohort."""
        return {cohort: getattr(self, cohort) for cohort in COHORTS}


@dataclass(frozen=True)
class SiteRow:
    """What the federation did for one site (macro AUROC, or mean R@1, on its own validation patients)."""

    run: str
    gain: Gain

    @property
    def verdict(self) -> str:
        return self.gain.verdict


def table(run_folders: Sequence[Path], metric: str = "") -> list[Row]:
    """Findings (the mean first) x runs; ``local`` is the mean over the sites' own models. metric: that of each run's
    headline, unless given; for text towers tasks stand in place of findings."""
    return _rows(_read(run_folders), metric)


def site_table(run_folders: Sequence[Path]) -> list[SiteRow]:
    """One row per run and site, the whole federation (site `central`) first."""
    return [SiteRow(label, gain) for label, run in _read(run_folders) for gain in run.gains if gain.finding == MACRO]


def _read(run_folders: Sequence[Path]) -> list[tuple[str, RunData]]:
    """Runs with labels that differ: the name, and the id where names repeat."""
    runs = [read_run(folder) for folder in run_folders]
    names = [run.name for run in runs]
    return [(r.name if names.count(r.name) == 1 else f"{r.name} {r.id}", r) for r in runs]


def _rows(runs: Sequence[tuple[str, RunData]], metric: str) -> list[Row]:
    named = {label: metric or run.headline[0] for label, run in runs}
    findings = dict.fromkeys(f for label, run in runs for f in (MACRO, *run.kinds(named[label])))
    rows = []
    for finding in findings:
        for label, run in runs:
            cells = {c: run.overall(c, named[label], finding) for c in COHORTS}
            shown = next((c for c in cells.values() if c.n is not None), Cell())
            rows.append(
                Row(
                    label,
                    finding,
                    shown.n,
                    shown.positives,
                    cells["local"],
                    cells["federated"],
                    cells["pooled"],
                )
            )
    return rows


def print_table(run_folders: Sequence[Path], console: Console | None = None, metric: str = "") -> None:
    """Both tables, for the command line; cohorts that no run has are left out."""
    console = console or Console()
    runs = _read(run_folders)
    for label, run in runs:
        if run.status != "completed":
            console.print(Text(f"{label}: {run.status}. {run.error or ''}".rstrip(), style="yellow"))
    shown = metric or ", ".join(dict.fromkeys(run.headline[0] for _, run in runs))
    rows = [row for row in _rows(runs, metric) if any(cell.value is not None for cell in row.cells.values())]
    if not rows:
        console.print(f"No run here has a value of {shown}.")
        return
    where = " / ".join(dict.fromkeys(run.where for _, run in runs))
    _print_findings(rows, f"{shown}, {where}", len(runs) > 1, console)
    _print_sites(runs, console)


def _print_findings(rows: Sequence[Row], title: str, several: bool, console: Console) -> None:
    cohorts = [c for c in COHORTS if any(row.cells[c].value is not None for row in rows)]
    shown = Table(title=title, box=None, title_justify="left", pad_edge=False)
    shown.add_column("finding", overflow="fold")
    if several:
        shown.add_column("run", overflow="fold")
    shown.add_column("positives / n", justify="right", no_wrap=True)
    for cohort in cohorts:
        shown.add_column("local (mean)" if cohort == "local" else cohort, no_wrap=True)
    before = None
    for row in rows:
        name = Text("" if row.finding == before else row.finding, style="bold" if row.finding == MACRO else "")
        before = row.finding
        support = "" if row.n is None else f"{row.positives} / {row.n}" if row.positives is not None else str(row.n)
        cells = [Text(_fitted(show_cell(row.cells[c]), console)) for c in cohorts]
        shown.add_row(name, *([Text(row.run)] if several else []), support, *cells)
    console.print(shown)


def _print_sites(runs: Sequence[tuple[str, RunData]], console: Console) -> None:
    rows = [SiteRow(label, g) for label, run in runs for g in run.gains if g.finding == MACRO]
    if not rows:
        console.print("No site has both a local and a federated value: who gained cannot be said.")
        return
    shown = Table(
        title=f"Who gained, who lost ({', '.join(sorted({run.headline[1] for _, run in runs}))})",
        box=None,
        title_justify="left",
        pad_edge=False,
    )
    several = len(runs) > 1
    for title in [*(["run"] if several else []), "site"]:
        shown.add_column(title, overflow="fold")
    for title in ("local", "federated", "pooled", "difference", "verdict"):
        left = title in ("difference", "verdict")
        shown.add_column(title, justify="left" if left else "right", no_wrap=title != "verdict")
    for row in rows:
        gain = row.gain
        place = "all sites (mean of local)" if gain.site == CENTRAL else gain.site
        numbers = [_three(gain.local), _three(gain.federated), _three(gain.pooled)]
        verdict = Text(f"{SIGNS.get(row.verdict, '·')} {row.verdict}", style=STYLES.get(row.verdict, ""))
        names = [Text(row.run)] if several else []
        difference = Text(_fitted(show_difference(gain), console))
        shown.add_row(*names, Text(place), *numbers, difference, verdict)
    console.print(shown)


def _fitted(text: str, console: Console) -> str:
    """On a narrow screen the interval stands below its value, and a reason takes several lines."""
    if console.width >= NARROW:
        return text
    if text[0].isalpha():
        return textwrap.fill(text, 15)
    return text.replace(" (", "\n(", 1).replace(" [", "\n[", 1)


def show_cell(cell: Cell) -> str:
    """`0.812 (0.780-0.843)`; for a mean without interval, `0.781 [0.70 to 0.84]` spans the models."""
    if cell.value is None:
        return cell.reason or "-"
    if cell.low is not None and cell.high is not None:
        return f"{cell.value:.3f} ({cell.low:.3f}-{cell.high:.3f})"
    if cell.models > 1 and cell.least is not None and cell.most is not None:
        return f"{cell.value:.3f} [{cell.least:.2f} to {cell.most:.2f}]"
    return f"{cell.value:.3f}"


def show_difference(gain: Gain) -> str:
    """`+0.031 (+0.010 to +0.052)`."""
    if gain.difference is None:
        return "-"
    if gain.low is None or gain.high is None:
        return _signed(gain.difference)
    return f"{_signed(gain.difference)} ({_signed(gain.low)} to {_signed(gain.high)})"


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _signed(value: float) -> str:
    shown = f"{value:+.3f}"
    return "0.000" if float(shown) == 0 else shown
