"""List runs: what each did and how it ended, also of folders that are broken."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from server.rundata import MACRO, RunData, number, read_run

MARKS = ("run.yaml", "metrics.jsonl", "results.json", "events.jsonl")
QUIET_SECONDS = 3600.0
"""A run that says it is running but has written nothing for so long has probably been killed."""


@dataclass(frozen=True)
class RunRow:
    """One run. ``note`` holds its error, or what is wrong with its folder."""

    folder: Path
    id: str
    name: str
    status: str
    rounds: int
    auroc: float | None
    low: float | None
    high: float | None
    started: str
    seconds: float | None
    note: str


def list_runs(root: Path) -> list[RunRow]:
    """Every run folder directly below ``root``, newest first.

    Raises:
        FileNotFoundError: ``root`` is no folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; give the folder that holds the runs")
    folders = [p for p in sorted(root.iterdir()) if p.is_dir() and any((p / m).exists() for m in MARKS)]
    rows = [_row(folder) for folder in folders]
    return sorted(rows, key=lambda row: (row.started, row.id), reverse=True)


def _row(folder: Path) -> RunRow:
    try:
        run = read_run(folder)
        macro = run.overall("federated", "auroc", MACRO)
        notes = [run.error, _silence(run), *run.problems]
        return RunRow(
            folder=folder,
            id=run.id,
            name=run.name,
            status=run.status,
            rounds=rounds_done(run),
            auroc=macro.value,
            low=macro.low,
            high=macro.high,
            started=str(run.run.get("started") or ""),
            seconds=duration(run),
            note="; ".join(note for note in notes if note),
        )
    except (OSError, TypeError, ValueError, AttributeError, KeyError) as error:
        # Hand-edited folders can be wrong in ways nobody lists; the other runs must still be shown.
        return RunRow(folder, folder.name, folder.name, "unreadable", 0, None, None, None, "", None, repr(error))


def rounds_done(run: RunData) -> int:
    """Rounds that the federation finished: as the run states, else those that left a line."""
    stated = number(run.results.get("rounds"))
    if stated is not None:
        return int(stated)
    return len({(ln.phase, ln.round) for ln in run.lines if ln.cohort == "federated" and ln.round > 0})


def duration(run: RunData) -> float | None:
    """Seconds of the run: as it states, else from its start to its end."""
    stated = number(run.results.get("seconds"))
    if stated is not None:
        return stated
    start, end = parse_time(run.run.get("started")), parse_time(run.run.get("finished"))
    return (end - start).total_seconds() if start and end else None


def parse_time(value: object) -> datetime | None:
    """ISO text, or what YAML made of it, as a naive time; None for anything else."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=None)
    try:
        return datetime.fromisoformat(str(value)).replace(tzinfo=None)
    except ValueError:
        return None


def _silence(run: RunData) -> str | None:
    if run.status != "running":
        return None
    written = [(run.path / mark).stat().st_mtime for mark in MARKS if (run.path / mark).exists()]
    quiet = time.time() - max(written)
    if quiet < QUIET_SECONDS:
        return None
    return f"nothing written for {show_seconds(quiet)}; probably killed, resume or remove it"


def show_seconds(seconds: float | None) -> str:
    """`3 h 20 min`, `4 min 05 s`, `12.3 s`."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def print_runs(rows: list[RunRow], console: Console | None = None) -> None:
    """A table of runs, for the command line, then a line for every run that has something to say."""
    console = console or Console()
    if not rows:
        console.print("No runs here yet.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    named = any(_plain(row.name) not in row.id for row in rows)  # ids made by a run hold its name
    titles = ["run", *(["name"] if named else []), "status", "rounds", "macro AUROC", "took"]
    for title in titles:
        table.add_column(title, justify="right" if title in ("rounds", "took") else "left", overflow="fold")
    for row in rows:
        band = f" ({row.low:.3f}-{row.high:.3f})" if row.low is not None and row.high is not None else ""
        score = "" if row.auroc is None else f"{row.auroc:.3f}{band}"
        style = {"failed": "red", "unreadable": "red", "running": "cyan"}.get(row.status, "")
        # Text, not markup: a name or an error may hold square brackets.
        names = [Text(row.id), *([Text(row.name)] if named else [])]
        table.add_row(*names, Text(row.status, style=style), str(row.rounds), score, show_seconds(row.seconds))
    console.print(table)
    for row in rows:
        if row.note:
            console.print(Text(f"{row.id}: {row.note}", style="dim"))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
