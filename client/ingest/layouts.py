"""CSV layouts: what the columns of an image set's manifest mean. A new public set is a YAML, not code.

The shipped layouts and a commented example of every key are in ``configs/layouts``.
"""

from __future__ import annotations

import csv
import datetime
import difflib
import os
import re
from collections.abc import Iterator
from dataclasses import field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from models.config import ConfigError, build, config, read_yaml
from models.studies.schema import CHEXPERT, LABEL_PREFIX, SEXES, VIEWS, Label, age_band, label_column

State = Literal["present", "absent", "uncertain", "unmentioned"]
_STRONGEST = ("present", "uncertain", "absent", "unmentioned")
_TEMPLATE = re.compile(r"\{([^{}]+)\}")
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([YMWD]?)", re.IGNORECASE)
_PER_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}
_LAYOUTS = Path(__file__).resolve().parents[2] / "configs" / "layouts"


class LayoutError(ValueError):
    """A folder that does not have what its layout promises. The text says what is missing and what to do."""


class BadRow(ValueError):
    """A row whose value its column does not allow; the row is quarantined."""


@config
class Mapped:
    """A value from a column through ``map``, or one fixed ``value``.

    otherwise: what values outside ``map`` become; without it they must be allowed as they stand.
    """

    column: str | None = None
    value: str | None = None
    map: dict[str, str] = field(default_factory=dict)
    otherwise: str | None = None

    def check(self) -> None:
        if (self.column is None) == (self.value is None):
            raise ValueError("give either column or value, not both and not neither")
        if self.column is None and (self.map or self.otherwise is not None):
            raise ValueError("map and otherwise need column; with a fixed value they have no meaning")

    def of(self, row: dict[str, str], allowed: tuple[str, ...] | None, blank: str | None) -> str:
        """The value for ``row``. ``blank`` is what an empty cell becomes unless ``map`` has an empty key."""
        raw = self.value if self.column is None else row.get(self.column, "").strip()
        raw = raw or ""
        if raw in self.map:
            return self.map[raw]
        if raw and (raw in allowed if allowed else not self.map):
            return raw
        if not raw and blank is not None:
            return blank
        if self.otherwise is None:
            raise BadRow(self.column or "value")
        return self.otherwise


@config
class Day:
    """When the study was: whole ``days`` from any origin of the patient, or a ``date`` in ``format``."""

    column: str
    kind: Literal["days", "date"] = "days"
    format: str = "%Y-%m-%d"


@config
class Condition:
    """True for a row whose ``column`` is among ``equals`` and not among ``differs``."""

    column: str
    equals: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()

    def check(self) -> None:
        if bool(self.equals) == bool(self.differs):
            raise ValueError("give either equals or differs, not both and not neither")

    def holds(self, row: dict[str, str]) -> bool:
        """Whether ``row`` meets the condition."""
        value = row.get(self.column, "").strip()
        return value in self.equals if self.equals else value not in self.differs


@config
class Labels:
    """Where findings stand. Exactly one of ``column``, ``columns`` and ``headers``.

    column: one column with one or, with ``separator``, several terms. ``map`` gives each term the findings it
    speaks of:
        a finding's name (present), or ``{finding: state}``. ``others`` is the state of findings that some
        term speaks of but no term of this row; a row with an empty cell mentions nothing. ``unmapped`` terms
        make the row bad (``quarantine``) or say nothing (``ignore``).
    columns: ``{finding: column}``, one column a finding; ``values`` gives each cell its state.
    headers: every column named as a CheXpert class, or ``label:<finding>``, is such a column.
    """

    column: str | None = None
    separator: str | None = None
    map: dict[str, str | dict[str, State]] = field(default_factory=dict)
    others: Literal["absent", "unmentioned"] = "unmentioned"
    unmapped: Literal["quarantine", "ignore"] = "quarantine"
    columns: dict[str, str] = field(default_factory=dict)
    headers: bool = False
    values: dict[str, State] = field(
        default_factory=lambda: {
            "1": "present",
            "1.0": "present",
            "0": "absent",
            "0.0": "absent",
            "-1": "uncertain",
            "-1.0": "uncertain",
            "": "unmentioned",
        }
    )

    def check(self) -> None:
        given = [n for n, v in (("column", self.column), ("columns", self.columns), ("headers", self.headers)) if v]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} contradict each other; keep one")
        if bool(self.column) != bool(self.map):
            raise ValueError("column and map belong together: map says what the column's terms mean")
        for finding in self._findings:
            label_column(finding)

    @cached_property
    def terms(self) -> dict[str, dict[str, State]]:
        """``map`` with the short form written out."""
        return {term: {means: "present"} if isinstance(means, str) else means for term, means in self.map.items()}

    @property
    def _findings(self) -> list[str]:
        return [*self.columns, *dict.fromkeys(f for means in self.terms.values() for f in means)]

    def columns_in(self, header: list[str]) -> dict[str, str]:
        """``{finding: column}`` for a manifest with this header (empty for the one-column form)."""
        if not self.headers:
            return self.columns
        found = {name.removeprefix(LABEL_PREFIX): name for name in header if name.startswith(LABEL_PREFIX)}
        return {**{name: name for name in header if name in CHEXPERT}, **found}

    def findings(self, header: list[str]) -> tuple[str, ...]:
        """Findings that a manifest with this header can speak of."""
        return tuple(dict.fromkeys([*self.columns_in(header), *self._findings]))

    def of(self, row: dict[str, str], columns: dict[str, str]) -> dict[str, int]:
        """``{label column: code}`` of the findings that ``row`` mentions.

        Raises:
            BadRow: a term or cell that the layout does not know.
        """
        if columns:
            return _codes(self._from_columns(row, columns))
        cell = row.get(self.column, "").strip() if self.column else ""
        if cell not in self._known_cells:  # a set has few different cells
            self._known_cells[cell] = _codes(self._from_terms(cell))
        return self._known_cells[cell]

    @cached_property
    def _known_cells(self) -> dict[str, dict[str, int]]:
        return {}

    def _from_columns(self, row: dict[str, str], columns: dict[str, str]) -> dict[str, State]:
        states: dict[str, State] = {}
        for finding, column in columns.items():
            cell = row.get(column, "").strip()
            if cell not in self.values:
                raise BadRow(column)
            states[finding] = self.values[cell]
        return states

    def _from_terms(self, cell: str) -> dict[str, State]:
        if not cell and "" not in self.terms:
            return {}
        terms = [term.strip() for term in cell.split(self.separator)] if self.separator else [cell]
        states: dict[str, State] = {}
        for term in terms:
            if term not in self.terms:
                if self.unmapped == "ignore":
                    continue
                raise BadRow(self.column)
            for finding, state in self.terms[term].items():
                states[finding] = min(states.get(finding, "unmentioned"), state, key=_STRONGEST.index)
        if self.others == "absent" and states:
            states = {**{finding: "absent" for finding in self._findings}, **states}
        return states


@config
class Report:
    """Columns with report text. Only text that is de-identified already: this importer does not scrub."""

    deidentified: bool
    findings: str | None = None
    impression: str | None = None

    def check(self) -> None:
        if not self.deidentified:
            raise ValueError("deidentified: false; only text without identifiers may be imported from a manifest")


@config
class Layout:
    """One manifest's meaning. Templates (``"{folder}/{filename}"``) are filled from the row's columns.

    name: names the set; patients and images are hashed with it: two sets never share a patient.
    about: where the set comes from and under which terms.
    csv: file names relative to the folder; the first that exists is read.
    image: templates of the path relative to the folder, with ``*`` for folders; the first that exists.
    patient, study: templates. Without ``study``, images of a patient with the same day and order are one
        study, and an image without either is a study of its own.
    day, order: when the study was; ``order`` is a column of integers where days are not known.
    view, sex, age, source: facts about image and patient.
    labels, report: findings and text.
    flags: quality flags, each set by a condition.
    rows: conditions that all must hold, or the row is left out.
    optional: columns that a manifest may lack.
    """

    name: str
    csv: tuple[str, ...]
    image: tuple[str, ...]
    patient: str
    source: Mapped
    about: str = ""
    delimiter: str = ","
    study: str | None = None
    day: Day | None = None
    order: str | None = None
    view: Mapped | None = None
    sex: Mapped | None = None
    age: str | None = None
    labels: Labels = field(default_factory=lambda: Labels())
    report: Report | None = None
    flags: dict[str, Condition] = field(default_factory=dict)
    rows: tuple[Condition, ...] = ()
    optional: tuple[str, ...] = ()

    def check(self) -> None:
        if not self.csv or not self.image:
            raise ValueError("csv and image: at least one each")

    def columns(self) -> list[str]:
        """Columns that the layout names, in the order of its keys."""
        templates = [*self.image, self.patient, self.study or ""]
        named = [name for template in templates for name in _TEMPLATE.findall(template)]
        parts = (self.day, self.view, self.sex, self.source, self.labels, *self.flags.values(), *self.rows)
        named += [part.column for part in parts if part is not None and part.column is not None]
        named += [self.order, self.age, *self.labels.columns.values()]
        named += [self.report.findings, self.report.impression] if self.report else []
        return list(dict.fromkeys(name for name in named if name is not None))


def load_layout(name: str | Path) -> Layout:
    """A shipped layout by its name, or one from a YAML file.

    Raises:
        ConfigError: no such layout (the text names those that ship), or a mistake in the file.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        known = sorted(p.stem for p in _LAYOUTS.glob("*.yaml"))
        if str(name) not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"layout {str(name)!r}: {hint}shipped: {', '.join(known)}; or give a .yaml file")
        path = _LAYOUTS / f"{name}.yaml"
    return build(Layout, read_yaml(path), path.stem)


class Manifest:
    """The rows of one folder, read through its layout.

    Raises:
        LayoutError: no such folder, no CSV, or a column that is not there.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder = Path(folder)
        self.layout = layout
        if not self.folder.is_dir():
            raise LayoutError(f"{folder}: no such folder; give the folder that holds {' or '.join(layout.csv)}")
        self.path = self._find_csv()
        self.rows = self._read()
        self.label_columns = layout.labels.columns_in(self.header)
        self.findings = layout.labels.findings(self.header)
        for finding in self.label_columns:
            label_column(finding)

    def kept(self) -> Iterator[tuple[int, dict[str, str]]]:
        """(line number in the file, row) of the rows that meet the layout's conditions."""
        for number, row in enumerate(self.rows, start=2):
            if all(condition.holds(row) for condition in self.layout.rows):
                yield number, row

    def image_path(self, row: dict[str, str]) -> tuple[str, str | None]:
        """(identity of the image in this set, path of its file or None when it is missing).

        The identity is the first template's path: it stays the same wherever the file lies.

        Raises:
            BadRow: a path that leaves the folder, or an empty one.
        """
        identity = self._relative(self.layout.image[0], row)
        for place, template in enumerate(self.layout.image):
            relative = self._relative(template, row) if place else identity
            parent, _, name = relative.rpartition("/")
            for folder in self._folders(parent):
                path = f"{folder}/{name}"
                if os.path.isfile(path):
                    return identity, path
        return identity, None

    def values(self, row: dict[str, str], identity: str) -> dict[str, Any]:
        """What the row says; the raw ``patient_id``, ``study_id`` and ``date`` are for hashing only.

        Raises:
            BadRow: a value that its column does not allow.
        """
        layout = self.layout
        patient = self._fill(layout.patient, row)
        if not patient:
            raise BadRow("patient")
        day, date = _day(layout.day, row)
        order = _integer(row.get(layout.order, ""), layout.order) if layout.order else None
        report = layout.report
        flags = [name for name, condition in layout.flags.items() if condition.holds(row)]
        return {
            "patient_id": patient,
            "study_id": self._study(row, identity, day if date is None else date.isoformat(), order),
            "date": date,
            "day": day,
            "order": order,
            "source": layout.source.of(row, None, None),
            "view": layout.view.of(row, VIEWS, "UNKNOWN") if layout.view else "UNKNOWN",
            "sex": layout.sex.of(row, SEXES, "UNKNOWN") if layout.sex else "UNKNOWN",
            "age_band": age_band(_age(row.get(layout.age, ""))) if layout.age else "UNKNOWN",
            "findings": (row.get(report.findings, "").strip() or None) if report and report.findings else None,
            "impression": (row.get(report.impression, "").strip() or None) if report and report.impression else None,
            "flags": ",".join(sorted(flags)) or None,
            **layout.labels.of(row, self.label_columns),
        }

    def _study(self, row: dict[str, str], identity: str, day: int | str | None, order: int | None) -> str:
        given = self._fill(self.layout.study, row) if self.layout.study else ""
        if given:
            return f"given {given}"
        return f"image {identity}" if day is None and order is None else f"day {day} order {order}"

    def _find_csv(self) -> Path:
        for pattern in self.layout.csv:
            found = sorted(self.folder.glob(pattern))
            if found:
                return found[0]
        raise LayoutError(
            f"{self.folder}: no {' or '.join(self.layout.csv)} there; layout {self.layout.name!r} reads that file"
        )

    def _read(self) -> list[dict[str, str]]:
        try:
            with open(self.path, newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file, delimiter=self.layout.delimiter, restval="", restkey=None)
                self.header = list(reader.fieldnames or [])
                self._check_header()
                return [{k: v for k, v in row.items() if k is not None} for row in reader]
        except (UnicodeDecodeError, csv.Error) as error:
            raise LayoutError(
                f"{self.path}: not readable as CSV in UTF-8 ({error}); save it as UTF-8 with the delimiter "
                f"{self.layout.delimiter!r}"
            ) from None

    def _check_header(self) -> None:
        for name in self.layout.columns():
            if name in self.header or name in self.layout.optional:
                continue
            near = difflib.get_close_matches(name, self.header, n=1, cutoff=0.5)
            hint = f"the nearest is {near[0]!r}; " if near else ""
            raise LayoutError(
                f"{self.path.name}: no column {name!r}, which layout {self.layout.name!r} needs; {hint}"
                f"the file has: {', '.join(self.header) or 'no header'}"
            )

    def _fill(self, template: str, row: dict[str, str], needed: bool = False) -> str:
        """``template`` with the row's cells in it; ``needed``: an empty cell makes the row bad."""
        parts = _split(template)
        filled = [row.get(part, "").strip() if i % 2 else part for i, part in enumerate(parts)]
        if needed and not all(filled[1::2]):
            raise BadRow("image")
        return "".join(filled).strip()

    def _relative(self, template: str, row: dict[str, str]) -> str:
        path = os.path.normpath(self._fill(template, row, needed=True).replace("\\", "/"))
        if path.startswith(("/", "../")) or path in (".", "..") or "\0" in path:
            raise BadRow("image")
        return path

    @cached_property
    def _known_folders(self) -> dict[str, list[str]]:
        return {}

    def _folders(self, parent: str) -> list[str]:
        """Folders that ``parent`` (perhaps with ``*``) names; looked up once."""
        if parent not in self._known_folders:
            found = sorted(self.folder.glob(parent)) if "*" in parent else [self.folder / parent]
            self._known_folders[parent] = [str(folder) for folder in found]
        return self._known_folders[parent]


@lru_cache
def _split(template: str) -> list[str]:
    """Texts and column names of a template, in turn."""
    return _TEMPLATE.split(template)


def _codes(states: dict[str, State]) -> dict[str, int]:
    """States as the store's columns; what is unmentioned is left out."""
    return {
        label_column(finding): int(Label[state.upper()]) for finding, state in states.items() if state != "unmentioned"
    }


def _day(day: Day | None, row: dict[str, str]) -> tuple[int | None, datetime.date | None]:
    raw = row.get(day.column, "").strip() if day else ""
    if day is None or not raw:
        return None, None
    if day.kind == "days":
        return _integer(raw, day.column), None
    try:
        return None, datetime.datetime.strptime(raw, day.format).date()
    except ValueError:
        raise BadRow(day.column) from None


def _integer(raw: str, column: str | None) -> int | None:
    """Whole number of a cell, "3" or "3.0"; None when it is empty."""
    raw = raw.strip()
    if not raw:
        return None
    try:
        number = float(raw)
    except ValueError:
        raise BadRow(column) from None
    if not number.is_integer() or abs(number) >= 2**30:
        raise BadRow(column)
    return int(number)


def _age(raw: str) -> float | None:
    """Years from "56", "056Y", "18M" or "90+"; None for anything else: no training depends on it."""
    match = _AGE.fullmatch(raw.strip().removesuffix("+"))
    return float(match[1]) / _PER_YEAR[match[2].upper()] if match else None
