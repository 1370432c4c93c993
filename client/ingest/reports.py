"""Reads the reports of a site, from a CSV or from one text file per study, without holding them in memory.

    files = ReportFiles(path, ReportsConfig())
    for report in files:            # Report, or Problem for a row or file that cannot be read
        ...
    files.text(report.place)        # the text again, later, in any order

:mod:`client.ingest.matching` says which study a report belongs to.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from client.ingest.codes import Reason
from client.ingest.encodings import MARKS, decode, wide_encoding
from client.ingest.refusal import Refusal
from models.config import ConfigError, config

ALIASES = {
    "text": ("text", "report", "report_text", "reporttext", "body", "narrative"),
    "study_uid": ("study_uid", "studyinstanceuid", "study_instance_uid", "studyuid"),
    "accession": ("accession", "accessionnumber", "accession_number", "accession_no"),
    "date": ("date", "report_date", "reportdate", "study_date", "studydate"),
}
"""Column names that are looked for where the configuration names none; case does not matter."""

DELIMITERS = (",", ";", "\t", "|")
SUFFIXES = ("", ".txt", ".text")


@config
class ReportsConfig:
    """How reports are read.

    Attributes:
        text, study_uid, accession, date: column names of the CSV; empty: any of ``ALIASES``.
        encoding: a Python codec name, or ``auto`` (see :mod:`client.ingest.encodings`).
        delimiter: one character, or ``auto``: the one that gives the columns.
        max_chars: longest report in characters.
        max_days_apart: how far the dates of report and study may lie apart; ``None``: not compared.
    """

    text: str = ""
    study_uid: str = ""
    accession: str = ""
    date: str = ""
    encoding: str = "auto"
    delimiter: str = "auto"
    max_chars: int = 100_000
    max_days_apart: int | None = 30

    def check(self) -> None:
        if self.encoding != "auto":
            try:
                codecs.lookup(self.encoding)
            except LookupError:
                raise ConfigError(
                    f"encoding: {self.encoding!r} is not known; give 'auto' or a codec such as 'cp1252'"
                ) from None
        if self.delimiter != "auto" and len(self.delimiter) != 1:
            raise ConfigError(f"delimiter: {self.delimiter!r}; give 'auto' or one character")
        if self.max_chars < 1 or (self.max_days_apart is not None and self.max_days_apart < 0):
            raise ConfigError("max_chars: at least 1 is needed; max_days_apart: 0 or more, or null")


class Place(NamedTuple):
    """Where a report lies: ``name`` of its file below the folder ("" for a CSV), first byte and length."""

    name: str
    start: int
    length: int


@dataclass(frozen=True, repr=False)
class Report:
    """One report as it stands in the file: identifiers and text are raw and never leave this process."""

    text: str
    place: Place
    study_uid: str = ""
    accession: str = ""
    date: str = ""

    @property
    def item(self) -> str:
        """What names it in the quarantine, where only a keyed hash of this arrives."""
        return self.study_uid or self.accession or f"{self.place.name}@{self.place.start}"


class Problem(NamedTuple):
    """A row or file that gave no report. ``item`` is hashed before it is written anywhere."""

    reason: Reason
    item: str


class ReportFiles:
    """The reports below ``path``: a CSV file, or a folder of text files named by study UID or accession
    number.

    Raises:
        ConfigError: the path is missing, or the CSV lacks a column. The text shows nothing of the file.
    """

    def __init__(self, path: Path, settings: ReportsConfig | None = None) -> None:
        self.path = Path(path)
        self.settings = settings or ReportsConfig()
        self.ignored = 0
        """Files of a folder that are no reports by their name: other suffixes, links."""
        if self.path.is_dir():
            self._table: _Table | None = None
        elif self.path.is_file():
            self._table = _Table(self.path, self.settings)
        else:
            raise ConfigError("reports: no such file or folder; give a CSV, or a folder with one text file per study")

    def __iter__(self) -> Iterator[Report | Problem]:
        return iter(self._table) if self._table else self._files()

    def text(self, place: Place) -> str:
        """The text of a report at ``place``.

        Raises:
            Refusal: the file changed since, or is gone.
        """
        if self._table:
            return self._table.text(place)
        return self._read(self.path / place.name)

    def _files(self) -> Iterator[Report | Problem]:
        self.ignored = 0
        for folder, folders, names in os.walk(self.path):
            folders.sort()
            for name in sorted(names):
                path = Path(folder) / name
                if path.suffix.lower() not in SUFFIXES or path.is_symlink() or not path.is_file():
                    self.ignored += 1
                    continue
                try:
                    text = self._read(path)
                except Refusal as refusal:
                    yield Problem(refusal.reason, path.stem)
                    continue
                stem = path.stem if path.suffix.lower() in SUFFIXES[1:] else name
                place = Place(str(path.relative_to(self.path)), 0, 0)
                yield Report(text, place, stem if _is_uid(stem) else "", stem)

    def _read(self, path: Path) -> str:
        try:
            with open(path, "rb") as file:
                raw = file.read(4 * self.settings.max_chars + 5)
        except OSError:
            raise Refusal(Reason.MISSING_FILE) from None
        return _checked(decode(raw, self.settings.encoding), self.settings)


def _is_uid(text: str) -> bool:
    """Whether a file name's stem has the shape of a UID (a name ending in ``.dcm`` or so has not)."""
    return text.count(".") >= 2 and all(part.isascii() and part.isdigit() for part in text.split("."))


def _checked(text: str, settings: ReportsConfig) -> str:
    if not text.strip():
        raise Refusal(Reason.REPORT_EMPTY)
    if len(text) > settings.max_chars:
        raise Refusal(Reason.TOO_LARGE)
    return text


class _Columns(NamedTuple):
    count: int
    delimiter: str
    text: int
    study_uid: int | None
    accession: int | None
    date: int | None


class _Table:
    """A CSV, read record by record.

    The structure of a CSV is ASCII in every encoding but UTF-16 and UTF-32, so the bytes are walked as
    Latin-1, which keeps each of them, and every cell is decoded by itself: one cell in another encoding
    costs one row.
    """

    def __init__(self, path: Path, settings: ReportsConfig) -> None:
        self.path = path
        self.settings = settings
        with open(path, "rb") as file:
            start = file.read(4096)
        self._wide = wide_encoding(start, settings.encoding)
        self._skip = next((len(mark) for mark, _ in MARKS if start.startswith(mark)), 0)
        self._columns = self._find_columns()

    def __iter__(self) -> Iterator[Report | Problem]:
        limit = csv.field_size_limit(4 * self.settings.max_chars)
        try:
            with open(self.path, "rb") as file:
                yield from self._reports(file)
        finally:
            csv.field_size_limit(limit)

    def _reports(self, file: BinaryIO) -> Iterator[Report | Problem]:
        lines = _Lines(file, self._skip, self._wide, 8 * self.settings.max_chars)
        try:
            yield from self._records(lines)
        finally:
            lines.release()

    def _records(self, lines: _Lines) -> Iterator[Report | Problem]:
        rows = csv.reader(lines, delimiter=self._columns.delimiter, strict=True)
        number = 0
        while True:
            start = lines.position
            try:
                row = next(rows, None)
                if row is None:
                    return
                number += 1
                if number > 1 and row:
                    place = Place("", start, lines.position - start)
                    yield self._report(row, place)
            except csv.Error:
                yield Problem(Reason.REPORT_MALFORMED, f"row at {start}")
            except UnicodeDecodeError:
                yield Problem(Reason.REPORT_ENCODING, f"row at {start}")
                return  # nothing behind a broken wide character can be trusted
            except Refusal as refusal:
                yield Problem(refusal.reason, f"row at {start}")

    def _report(self, row: list[str], place: Place) -> Report | Problem:
        columns = self._columns
        if len(row) != columns.count:
            return Problem(Reason.REPORT_MALFORMED, f"row at {place.start}")
        keys = [self._cell(row, column).strip() for column in columns[3:]]
        report = Report(self._cell(row, columns.text), place, *keys)
        try:
            _checked(report.text, self.settings)
        except Refusal as refusal:
            return Problem(refusal.reason, report.item)
        return report

    def _cell(self, row: list[str], column: int | None) -> str:
        if column is None:
            return ""
        if self._wide:
            return row[column]
        encoding = self.settings.encoding
        return decode(row[column].encode("latin-1"), encoding)

    def text(self, place: Place) -> str:
        """The text cell of the record at ``place``."""
        with open(self.path, "rb") as file:
            file.seek(place.start)
            raw = file.read(place.length)
        limit = csv.field_size_limit(4 * self.settings.max_chars)
        try:
            lines = io.StringIO(raw.decode(self._wide or "latin-1"), newline="")
            row = next(csv.reader(lines, delimiter=self._columns.delimiter, strict=True))
            return _checked(self._cell(row, self._columns.text), self.settings)
        except (csv.Error, StopIteration, IndexError, UnicodeDecodeError):
            raise Refusal(Reason.REPORT_MALFORMED, "changed") from None
        finally:
            csv.field_size_limit(limit)

    def _find_columns(self) -> _Columns:
        """The columns by the first record. Its contents are never shown: a file without header has data
        there.
        """
        with open(self.path, "rb") as file:
            lines = _Lines(file, self._skip, self._wide, 1 << 16)
            try:
                first = next(lines, "")
            except (Refusal, UnicodeDecodeError):
                first = ""
            lines.release()
        wanted = {name: getattr(self.settings, name) for name in ALIASES}
        missing: set[str] = set()
        delimiters = DELIMITERS if self.settings.delimiter == "auto" else (self.settings.delimiter,)
        for delimiter in delimiters:
            header = [self._name(cell) for cell in next(csv.reader([first], delimiter=delimiter), [])]
            found = {
                name: next((header.index(n) for n in _names(name, own) if n in header), None)
                for name, own in wanted.items()
            }
            missing = {name for name, own in wanted.items() if found[name] is None and (own or name == "text")}
            keyed = found["study_uid"] is not None or found["accession"] is not None
            if not missing and keyed:
                if any(header.count(header[place]) > 1 for place in found.values() if place is not None):
                    raise ConfigError("reports: a column name stands twice in the first line; rename one")
                return _Columns(len(header), delimiter, **found)  # type: ignore[arg-type]
        named = {name: own or " or ".join(ALIASES[name]) for name, own in wanted.items()}
        lacking = "; ".join(f"{name}: {named[name]}" for name in sorted(missing or {"study_uid", "accession"}))
        raise ConfigError(
            f"reports: the first line lacks a column ({lacking}); name the columns in the configuration. "
            "The text is needed, and a study UID or an accession number"
        )

    def _name(self, cell: str) -> str:
        """A column's name as it is compared."""
        if not self._wide:
            try:
                cell = decode(cell.encode("latin-1"), self.settings.encoding)
            except Refusal:
                return ""
        return cell.strip().lower()


def _names(column: str, own: str) -> tuple[str, ...]:
    """Names under which a column is looked for."""
    return (own.strip().lower(),) if own else ALIASES[column]


class _Lines:
    """Lines of a file with their ends, and the byte ``position`` behind the last one given out."""

    def __init__(self, file: BinaryIO, start: int, wide: str, longest: int) -> None:
        file.seek(start)
        self.position = start
        self._wide = wide
        self._longest = longest
        self._text = io.TextIOWrapper(file, wide or "latin-1", newline="")

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(self._longest)
        if not line:
            raise StopIteration
        self.position += len(line.encode(self._wide or "latin-1"))
        if len(line) >= self._longest:
            self._pass_over()
            raise Refusal(Reason.TOO_LARGE)
        return line

    def release(self) -> None:
        """Let go of the file, which its opener closes: a wrapper that is left over warns, with the file's name."""
        self._text.detach()

    def _pass_over(self) -> None:
        """Skip the rest of a line that is too long."""
        while True:
            rest = self._text.readline(self._longest)
            self.position += len(rest.encode(self._wide or "latin-1"))
            if len(rest) < self._longest:
                return
