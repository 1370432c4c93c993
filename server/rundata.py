"""Read a run folder: whatever of it exists, and what of it could not be read.

Results pages, comparisons and listings read run folders through this file and nothing else. A folder of a
run that is still going, was killed, or is damaged is read as far as it goes; the rest is named in
``problems``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from models.config import ConfigError, read_yaml

CENTRAL = "central"
MACRO = "macro"
COHORTS = ("federated", "local", "pooled")
SCORES = ("auroc", "auroc_within_site", "average_precision", "ece", "ece_floor", "brier")
"""Metrics of the evaluation protocol; other lines tell how training went (loss, seconds, bytes)."""
QUESTIONS = ("recall_at_1", "recall_at_5", "recall_at_10", "mc4", "mc4_ties", "mc4_margin", "mc4_beats")
"""Metrics of the protocol for text towers."""
JUDGED = (*SCORES, *QUESTIONS)
UNDER = re.compile(r"(auroc|auroc_difference)_under_(\w+)")
"""Metrics on films that are spoilt: which, and by what."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of ``metrics.jsonl``. For cohort `local`, ``trained_on`` is the site whose model it is; ``strength`` is
    how much the films were spoilt, for a metric of :data:`UNDER`."""

    phase: str
    round: int
    cohort: str
    site: str
    trained_on: str | None
    split: str
    metric: str
    finding: str | None
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    positives: int | None = None
    reason: str | None = None
    strength: float | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """A number to show. ``models`` > 1: the mean over that many models, which span ``least`` to ``most``."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    positives: int | None = None
    reason: str | None = None
    models: int = 1
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Gain:
    """Federated minus the site's own training (site `central`: minus the mean of the sites' own models)."""

    site: str
    finding: str
    local: float | None
    federated: float | None
    pooled: float | None
    difference: float | None
    low: float | None
    high: float | None
    reason: str | None = None

    @property
    def verdict(self) -> str:
        """In words. Gained or lost is said only if the interval of the difference leaves out zero."""
        if self.difference is None:
            return f"not judged ({self.reason})" if self.reason else "not judged"
        if self.low is None or self.high is None:
            side = "higher" if self.difference > 0 else "lower" if self.difference < 0 else "equal"
            return f"{side}, no interval"
        return "gained" if self.low > 0 else "lost" if self.high < 0 else "no clear difference"


@dataclass(frozen=True)
class RunData:
    """What a run left. Every part may be empty; ``problems`` says which files or lines could not be read."""

    path: Path
    run: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    lines: tuple[Line, ...] = ()
    events: tuple[Mapping[str, Any], ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return str(self.run.get("run") or self.results.get("run") or self.path.name)

    @property
    def name(self) -> str:
        return str(self.run.get("name") or self.id)

    @property
    def status(self) -> str:
        """As the run itself states it (`running`, `completed`, `failed`); `unknown` if it does not."""
        return str(self.results.get("status") or self.run.get("status") or "unknown")

    @property
    def error(self) -> str | None:
        text = self.results.get("error") or self.run.get("error")
        return str(text) if text else None

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites: as the run declares them, then any other that has lines."""
        declared = [str(s["name"]) for s in self.declared_sites if s.get("name") is not None]
        seen = [line.site for line in self.lines if line.site != CENTRAL]
        return tuple(dict.fromkeys([*declared, *seen]))

    @cached_property
    def declared_sites(self) -> tuple[Mapping[str, Any], ...]:
        given = self.run.get("sites")
        return tuple(s for s in given if isinstance(s, dict)) if isinstance(given, list) else ()

    @cached_property
    def findings(self) -> tuple[str, ...]:
        """Findings that were scored, in order of appearance, without the mean."""
        scored = (ln.finding for ln in self.final_lines if ln.metric in SCORES and ln.finding)
        return tuple(f for f in dict.fromkeys(scored) if f != MACRO)

    @cached_property
    def text(self) -> bool:
        """Whether the model was judged, at the end, by questions on reports and not by findings on films."""
        return any(ln.metric in QUESTIONS for ln in self.final_lines) and not self.findings

    @property
    def headline(self) -> tuple[str, str]:
        """The metric that one number tells of the run (its finding is ``macro``), and its name."""
        return ("recall_at_1", "mean R@1") if self.text else ("auroc", "macro AUROC")

    def kinds(self, metric: str) -> tuple[str, ...]:
        """Findings, tasks or categories that ``metric`` has at the end, without the mean."""
        named = dict.fromkeys(ln.finding for ln in self.final_lines if ln.metric == metric and ln.finding)
        return self.findings if metric in SCORES else tuple(kind for kind in named if kind != MACRO)

    @cached_property
    def moments(self) -> dict[tuple[str, int], float]:
        """Where each (phase, round) stands on the time axis, which runs on over the phases.

        Round 0 of a phase is the model it started from: the last of the phase before.
        """
        rounds: dict[str, set[int]] = {}
        for line in self.lines:
            rounds.setdefault(line.phase, set()).add(line.round)
        at, past = {}, 0
        for phase, numbers in rounds.items():
            at |= {(phase, number): float(past + number) for number in sorted(numbers)}
            past += max(numbers)
        return at

    def moment(self, line: Line) -> float:
        return self.moments[line.phase, line.round]

    @cached_property
    def final_lines(self) -> tuple[Line, ...]:
        """Scores of the last evaluated round of every cohort (and, for `local`, of every site's model)."""
        given = self.results.get("final")
        stated = tuple(_parse_lines(given)[0]) if isinstance(given, list) else ()
        stated = tuple(line for line in stated if line.metric in JUDGED)
        have = {line.cohort for line in stated}
        last: dict[tuple[str, str | None], float] = {}
        scored = [ln for ln in self.lines if ln.metric in JUDGED and ln.cohort not in have]
        for line in scored:
            key = (line.cohort, line.trained_on)
            last[key] = max(last.get(key, -math.inf), self.moment(line))
        ends = (ln for ln in scored if self.moment(ln) == last[ln.cohort, ln.trained_on])
        return (*stated, *ends)

    @cached_property
    def _final(self) -> dict[tuple[str, str, str, str | None, str | None], Line]:
        return {(ln.cohort, ln.site, ln.metric, ln.finding, ln.trained_on): ln for ln in self.final_lines}

    @cached_property
    def trainers(self) -> tuple[str, ...]:
        """Sites that trained a model of their own, in the order of ``sites``."""
        names = {ln.trained_on for ln in self.final_lines if ln.cohort == "local"} - {None}
        return tuple(s for s in self.sites if s in names) + tuple(sorted(names - set(self.sites)))

    def final(self, cohort: str, metric: str, finding: str, site: str = CENTRAL) -> Cell:
        """The last value of a cohort at a place. For `local`: centrally the mean over the sites' models,
        with the interval only if the run wrote one (a line without ``trained_on``); at a site that site's
        own model."""
        if cohort != "local":
            return _cell(self._final.get((cohort, site, metric, finding, None)))
        whole = self._final.get((cohort, site, metric, finding, None))
        if site != CENTRAL:
            return _cell(self._final.get((cohort, site, metric, finding, site)) or whole)
        models = [self._final.get((cohort, site, metric, finding, t)) for t in self.trainers]
        return _mean(whole, [line for line in models if line is not None])

    def history(self, cohort: str, metric: str, finding: str | None, site: str = CENTRAL) -> list[tuple[float, Cell]]:
        """(moment, cell) over the rounds, rising; cells as in :meth:`final`."""
        at: dict[float, list[Line]] = {}
        for line in self._by_kind.get((cohort, metric, finding, site), ()):
            at.setdefault(self.moment(line), []).append(line)
        return [(x, self._at(cohort, site, lines)) for x, lines in sorted(at.items())]

    @cached_property
    def central(self) -> bool:
        """Whether the server judged the federated model itself. In a deployment it may hold no images."""
        return any(
            ln.cohort == "federated" and ln.site == CENTRAL
            for ln in self.lines + self.final_lines
            if ln.metric in JUDGED
        )

    @property
    def where(self) -> str:
        """On whose images :meth:`overall` rests, in words."""
        if self.central:
            return "on the validation patients of all sites"
        return "mean over sites, each on its own validation patients"

    def overall(self, cohort: str, metric: str, finding: str) -> Cell:
        """The last value over the federation: as judged centrally, else the mean over the sites' own
        values."""
        if self.central:
            return self.final(cohort, metric, finding)
        return _mean_of_sites([self.final(cohort, metric, finding, site) for site in self.sites])

    def overall_history(self, cohort: str, metric: str, finding: str) -> list[tuple[float, Cell]]:
        """(moment, cell) of :meth:`overall` over the rounds."""
        if self.central:
            return self.history(cohort, metric, finding)
        at: dict[float, list[Cell]] = {}
        for site in self.sites:
            for x, cell in self.history(cohort, metric, finding, site):
                at.setdefault(x, []).append(cell)
        return [(x, _mean_of_sites(cells)) for x, cells in sorted(at.items())]

    def _at(self, cohort: str, site: str, lines: list[Line]) -> Cell:
        whole = next((ln for ln in lines if ln.trained_on is None), None)
        if cohort != "local":
            return _cell(whole or lines[-1])  # two lines at one moment: a phase's end, and the next one's start
        if site != CENTRAL:
            return _cell(next((ln for ln in lines if ln.trained_on == site), whole))
        return _mean(whole, [ln for ln in lines if ln.trained_on is not None])

    @cached_property
    def _by_kind(self) -> dict[tuple[str, str, str | None, str], list[Line]]:
        kinds: dict[tuple[str, str, str | None, str], list[Line]] = {}
        for line in self.lines:
            kinds.setdefault((line.cohort, line.metric, line.finding, line.site), []).append(line)
        return kinds

    @cached_property
    def spoilt(self) -> tuple[Line, ...]:
        """Lines of metrics on films that were spoilt."""
        return tuple(ln for ln in self.lines if ln.strength is not None and UNDER.fullmatch(ln.metric))

    @cached_property
    def gains(self) -> tuple[Gain, ...]:
        """As the run wrote them (paired intervals), else plain differences of the last values."""
        given = self.results.get("gain")
        rows = [g for g in given if isinstance(g, dict)] if isinstance(given, list) else []
        if rows:
            return tuple(_parse_gain(g) for g in rows)
        return tuple(self._plain_gains())

    def _plain_gains(self) -> Iterator[Gain]:
        for site in (CENTRAL, *self.sites):
            for finding in (MACRO, *self.findings):
                local, federated, pooled = (
                    self.final(c, self.headline[0], finding, site).value for c in ("local", "federated", "pooled")
                )
                if local is not None and federated is not None:
                    yield Gain(site, finding, local, federated, pooled, federated - local, None, None)


def _cell(line: Line | None) -> Cell:
    if line is None:
        return Cell()
    return Cell(line.value, line.low, line.high, line.n, line.positives, line.reason)


def _parse_gain(row: Mapping[str, Any]) -> Gain:
    numbers = (number(row.get(k)) for k in ("local", "federated", "pooled", "difference", "low", "high"))
    reason = row.get("reason")
    place, finding = str(row.get("site") or CENTRAL), str(row.get("finding") or MACRO)
    return Gain(place, finding, *numbers, None if reason is None else str(reason))


def _mean_of_sites(cells: list[Cell]) -> Cell:
    """Plain mean over the sites that have a value; counts add up, because sites hold different patients."""
    known = [cell for cell in cells if cell.value is not None]
    if not known:
        return next((cell for cell in cells if cell.reason), Cell())
    values = [cell.value for cell in known]
    sums = [None if None in part else sum(part) for part in zip(*((c.n, c.positives) for c in known))]
    return Cell(sum(values) / len(values), None, None, *sums, None, len(known), min(values), max(values))


def _mean(whole: Line | None, models: list[Line]) -> Cell:
    values = [line.value for line in models if line.value is not None]
    if whole is not None and whole.value is not None:
        cell = _cell(whole)
    elif values and len(values) == len(models):
        first = models[0]
        cell = Cell(sum(values) / len(values), None, None, first.n, first.positives)
    else:
        return _cell(whole or (models[0] if models else None)) if not values else Cell(reason="not all models have one")
    span = (min(values), max(values)) if values else (None, None)
    return Cell(cell.value, cell.low, cell.high, cell.n, cell.positives, cell.reason, max(len(models), 1), *span)


def number(value: Any) -> float | None:
    """A finite float, or None for anything else (JSON written by others may hold NaN, text or true)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def read_run(folder: Path) -> RunData:
    """Read ``folder`` as far as it can be read.

    Raises:
        FileNotFoundError: there is no such folder. Nothing else: see ``RunData.problems``.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such run folder; `fedcxr-server runs` lists those there are")
    problems: list[str] = []
    run = _read_run_yaml(folder / "run.yaml", problems)
    results = _read_json(folder / "results.json", problems)
    raw_lines = _read_jsonl(folder / "metrics.jsonl", problems)
    lines, bad = _parse_lines(raw_lines)
    if bad:
        problems.append(f"metrics.jsonl: {bad} of {len(raw_lines)} lines lack phase, round, cohort, site or metric")
    events = [e for e in _read_jsonl(folder / "events.jsonl", problems) if isinstance(e, dict)]
    return RunData(folder, run, results, tuple(lines), tuple(events), tuple(problems))


def _read_run_yaml(path: Path, problems: list[str]) -> dict[str, Any]:
    if not path.is_file():
        problems.append("run.yaml: missing")
        return {}
    try:
        return read_yaml(path)
    except ConfigError as error:
        problems.append("run.yaml: " + str(error).removeprefix(f"{path}:").strip())
        return {}


def _read_json(path: Path, problems: list[str]) -> dict[str, Any]:
    if not path.is_file():
        return {}  # a run that has not ended has none
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{path.name}: not readable as JSON ({type(error).__name__})")
        return {}
    if not isinstance(value, dict):
        problems.append(f"{path.name}: holds a {type(value).__name__}, not keys and values")
        return {}
    return value


def _read_jsonl(path: Path, problems: list[str]) -> list[Any]:
    if not path.is_file():
        return []
    rows, bad, count = [], 0, 0
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for text in file:
                if not text.strip():
                    continue
                count += 1
                try:
                    rows.append(json.loads(text))
                except (ValueError, RecursionError):
                    bad += 1
    except OSError as error:
        problems.append(f"{path.name}: cannot be read ({type(error).__name__})")
    if bad:
        problems.append(f"{path.name}: {bad} of {count} lines are not valid JSON; they are left out")
    return rows


def _parse_lines(rows: list[Any]) -> tuple[list[Line], int]:
    """Lines and how many rows were no line."""
    lines: list[Line] = []
    for row in rows:
        line = _parse_line(row) if isinstance(row, dict) else None
        if line is not None:
            lines.append(line)
    return lines, len(rows) - len(lines)


def _parse_line(row: dict[str, Any]) -> Line | None:
    needed = (row.get("cohort"), row.get("site"), row.get("metric"))
    turn = number(row.get("round"))
    if turn is None or not all(isinstance(v, str) for v in needed):
        return None
    n, positives = number(row.get("n")), number(row.get("positives"))
    trained_on, finding, reason = row.get("trained_on"), row.get("finding"), row.get("reason")
    return Line(
        phase=str(row.get("phase", "")),
        round=int(turn),
        cohort=row["cohort"],
        site=row["site"],
        trained_on=None if trained_on is None else str(trained_on),
        split=str(row.get("split", "")),
        metric=row["metric"],
        finding=None if finding is None else str(finding),
        value=number(row.get("value")),
        low=number(row.get("low")),
        high=number(row.get("high")),
        n=None if n is None else int(n),
        positives=None if positives is None else int(positives),
        reason=None if reason is None else str(reason),
        strength=number(row.get("strength")),
    )
