"""Who gained, who lost: local, federated and pooled training side by side, for one run or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from server.rundata import CENTRAL, COHORTS, MACRO, Cell, Gain, RunData, read_run

STYLES = {"gained": "bold blue", "lost": "bold yellow"}
SIGNS = {"gained": "▲", "lost": "▼"}


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


@dataclass(frozen=True)
class SiteRow:
    """What the federation did for one site (macro AUROC on its own validation patients)."""

    run: str
    gain: Gain

    @property
    def verdict(self) -> str:
        return self.gain.verdict


def table(run_folders: Sequence[Path], metric: str = "auroc") -> list[Row]:
    """Findings (the mean first) x runs; ``local`` is the mean over the sites' own models."""
    return _rows(_read(run_folders), metric)


def site_table(run_folders: Sequence[Path]) -> list[SiteRow]:
    """One row per run and site, the whole federation (site `central`) first."""
    return [
        SiteRow(label, gain)
        for label, run in _read(run_folders)
        for gain in run.gains
        if gain.finding == MACRO
    ]


def _read(run_folders: Sequence[Path]) -> list[tuple[str, RunData]]:
    """Runs with labels that differ: the name, and the id where names repeat."""
    runs = [read_run(folder) for folder in run_folders]
    names = [run.name for run in runs]
    return [(r.name if names.count(r.name) == 1 else f"{r.name} {r.id}", r) for r in runs]


def _rows(runs: Sequence[tuple[str, RunData]], metric: str) -> list[Row]:
    findings = dict.fromkeys(f for _, run in runs for f in (MACRO, *run.findings))
    rows = []
    for finding in findings:
        for label, run in runs:
            cells = {c: run.overall(c, metric, finding) for c in COHORTS}
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


def print_table(run_folders: Sequence[Path], console: Console | None = None, metric: str = "auroc") -> None:
    """Both tables, for the command line; cohorts that no run has are left out."""
    console = console or Console()
    runs = _read(run_folders)
    rows = _rows(runs, metric)
    labels = [label for label, _ in runs]
    by_cell = {(row.run, row.finding): row for row in rows}
    columns = [
        (label, cohort)
        for label in labels
        for cohort in COHORTS
        if any(getattr(row, cohort).value is not None for row in rows if row.run == label)
    ]
    for label, run in runs:
        if run.status != "completed":
            console.print(Text(f"{label}: {run.status}. {run.error or ''}".rstrip(), style="yellow"))
    if not columns:
        console.print(f"No run here has a value of {metric}.")
        return
    where = " / ".join(dict.fromkeys(run.where for _, run in runs))
    first = Table(title=f"{metric}, {where}", box=None, title_justify="left")
    first.add_column("finding", overflow="fold")
    first.add_column("positives / n", justify="right")
    for label, cohort in columns:
        word = "local (mean)" if cohort == "local" else cohort
        first.add_column(Text(word if len(labels) == 1 else f"{label}\n{word}"), justify="left")
    for finding in dict.fromkeys(row.finding for row in rows):
        known = [by_cell[label, finding] for label in labels]
        support = next((r for r in known if r.n is not None), known[0])
        count = "" if support.n is None else f"{support.positives} / {support.n}"
        cells = [show_cell(getattr(by_cell[label, finding], cohort)) for label, cohort in columns]
        first.add_row(Text(finding, style="bold" if finding == MACRO else ""), count, *map(Text, cells))
    console.print(first)
    _print_sites(runs, console)


def _print_sites(runs: Sequence[tuple[str, RunData]], console: Console) -> None:
    rows = [SiteRow(label, g) for label, run in runs for g in run.gains if g.finding == MACRO]
    if not rows:
        console.print("No site has both a local and a federated value: who gained cannot be said.")
        return
    second = Table(title="Who gained, who lost (macro AUROC)", box=None, title_justify="left")
    several = len(runs) > 1
    for title in [*(["run"] if several else []), "site"]:
        second.add_column(title, overflow="fold")
    for title in ("local", "federated", "pooled", "difference"):
        second.add_column(title, justify="left" if title == "difference" else "right")
    second.add_column("verdict")
    for row in rows:
        gain = row.gain
        place = "all sites (mean of local)" if gain.site == CENTRAL else gain.site
        numbers = [_three(gain.local), _three(gain.federated), _three(gain.pooled)]
        verdict = Text(f"{SIGNS.get(row.verdict, '·')} {row.verdict}", style=STYLES.get(row.verdict, ""))
        names = [Text(row.run)] if several else []
        second.add_row(*names, Text(place), *numbers, show_difference(gain), verdict)
    console.print(second)


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
        return f"{gain.difference:+.3f}"
    return f"{gain.difference:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
