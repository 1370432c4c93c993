"""``fedcxr-site label``: a CSV of reports in, the 14 CheXpert findings of each out."""

from __future__ import annotations

import csv
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, TextIO

import typer
from rich.markup import escape
from rich.progress import Progress

from client.commands.common import AsJson, console, errors, failed, print_json, unusable

if TYPE_CHECKING:
    from models.language.labeller import Labelling

_DELIMITERS = (",", ";", "\t", "|")
_LONGEST_CELL = 4 << 20
"""Bytes of one cell; a longer one is the sign of a quote that is never closed."""
_SHOWN = 12


class TableError(ValueError):
    """A CSV that cannot be used; the text says why and what to do."""


@dataclass
class Labelled:
    """What was done. ``silent`` rows hold text in which nothing was recognised, ``shortened`` ones more than is read."""

    rows: int = 0
    labelled: int = 0
    empty: int = 0
    silent: int = 0
    unreadable: int = 0
    shortened: int = 0
    seconds: float = 0.0
    labels: dict[str, dict[str, int]] = field(default_factory=dict)


def label_command(
    table: Annotated[Path, typer.Option("--csv", help="CSV with one report a row and names in its first row.")],
    out: Annotated[Path, typer.Option("--out", help="CSV to write: the id and one column a class.")],
    text_columns: Annotated[
        str, typer.Option("--text-columns", help="Columns that hold the report, with commas between.")
    ] = "report",
    id_column: Annotated[str, typer.Option("--id-column", help="Column that names the report.")] = "id",
    probable: Annotated[
        str, typer.Option("--probable", help="What 'likely' and 'suggestive of' count as: uncertain or present.")
    ] = "uncertain",
    parents: Annotated[
        bool, typer.Option("--parents", help="A consolidation is a lung opacity too, and so on up the tree.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Label the findings of reports: present, absent, uncertain, or empty where the report is silent.

    Values are read from findings, impression and addenda; no report text is written anywhere.
    """
    from models.config import ConfigError, build
    from models.language.labeller import Labelling

    names = [name.strip() for name in text_columns.split(",") if name.strip()]
    try:
        if not names:
            raise TableError("--text-columns: no column named; give one or more with commas between")
        how = build(Labelling, {"probable": probable, "parents": parents}, "label")
        _check_places(table, out)
        source = _Source(table, id_column, names)
    except (ConfigError, TableError) as error:
        unusable(str(error), as_json)
    except OSError as error:
        unusable(f"{table}: cannot be read ({type(error).__name__}); give a readable file", as_json)
    try:
        with Progress(console=errors, disable=as_json, transient=True) as bar:
            task = bar.add_task("labelling", total=source.size)
            done = _label(source, out, how, lambda position: bar.update(task, completed=position))
    except OSError as error:
        failed(f"{out}: could not be written ({error.strerror or type(error).__name__}); nothing was kept", as_json)
    if as_json:
        print_json(asdict(done))
        return
    console.print(f"{done.labelled} of {done.rows} reports labelled, {done.seconds:.1f} s", highlight=False)
    for count, what in (
        (done.empty, "without any text"),
        (done.silent, "in which nothing was recognised: is it English radiology?"),
        (done.unreadable, "rows that cannot be read as a row of this table: left out"),
        (done.shortened, "longer than is read: their end was not looked at"),
    ):
        if count:
            console.print(f"  {count} {what}", highlight=False)
    console.print(escape(f"  written to {out}"), highlight=False, soft_wrap=True)


def _check_places(table: Path, out: Path) -> None:
    if not table.is_file():
        raise TableError(f"{table}: no such file; give a CSV")
    if out.exists() and (out.is_dir() or out.samefile(table)):
        raise TableError(f"{out}: is {'a folder' if out.is_dir() else 'the table itself'}; give another file for --out")
    if not out.resolve().parent.is_dir():
        raise TableError(f"{out}: its folder does not exist; make it first")


class _Source:
    """Rows of a CSV whose encoding and delimiter are found out, one at a time.

    The structure of a CSV is ASCII in all encodings but UTF-16 and UTF-32, so it is walked as Latin-1 and every
    cell is decoded by itself: one cell in another encoding costs one row.
    """

    def __init__(self, path: Path, id_column: str, text_columns: list[str]) -> None:
        from client.ingest.encodings import marked, wide_encoding

        self.path, self.size, self.id_column = path, path.stat().st_size, id_column
        with open(path, "rb") as file:
            start = file.read(65536)
        self._wide = wide_encoding(start)
        mark, _ = marked(start)
        self._skip = len(mark)
        first = self._first_line(start)
        wanted = [id_column, *text_columns]
        headers = {d: [cell.strip() for cell in next(csv.reader([first], delimiter=d), [])] for d in _DELIMITERS}
        fitting = [d for d in _DELIMITERS if set(wanted) <= set(headers[d])]
        if not fitting:
            header = max(headers.values(), key=len)
            missing = ", ".join(name for name in wanted if name not in header)
            raise TableError(f"{path}: no column {missing}; there are {_shown(header)}. Names are in the first row")
        self._delimiter = fitting[0]
        header = headers[self._delimiter]
        twice = sorted({name for name in wanted if header.count(name) > 1})
        if twice:
            raise TableError(f"{path}: more than one column is called {', '.join(twice)}; rename one")
        self._count = len(header)
        self._places = [header.index(name) for name in wanted]

    def _first_line(self, start: bytes) -> str:
        text = start[self._skip :].decode(self._wide or "latin-1", errors="replace")
        if not self._wide:
            from client.ingest.encodings import decode
            from client.ingest.refusal import Refusal

            line = text.splitlines()[:1]
            with suppress(Refusal):
                return decode("".join(line).encode("latin-1"))
        return "".join(text.splitlines()[:1])

    def rows(self) -> Iterator[tuple[int, list[str] | None]]:
        """(position in the file, [id, texts...]) of every row; ``None`` for one that cannot be read."""
        limit = csv.field_size_limit(_LONGEST_CELL)
        try:
            with open(self.path, "rb") as raw:
                raw.seek(self._skip)
                yield from self._rows(raw)
        finally:
            csv.field_size_limit(limit)

    def _rows(self, raw: BinaryIO) -> Iterator[tuple[int, list[str] | None]]:
        lines = _Lines(raw, self._wide or "latin-1")
        reader = csv.reader(lines, delimiter=self._delimiter)
        header = True
        while True:
            try:
                row = next(reader, None)
            except csv.Error:
                yield lines.position, None
                continue
            if row is None:
                return
            if header:
                header = False
                continue
            if row:
                yield lines.position, self._cells(row)

    def _cells(self, row: list[str]) -> list[str] | None:
        from client.ingest.encodings import decode
        from client.ingest.refusal import Refusal

        if len(row) != self._count:
            return None
        cells = [row[place] for place in self._places]
        if self._wide:
            return cells
        try:
            return [cell if cell.isascii() and cell.isprintable() else decode(cell.encode("latin-1")) for cell in cells]
        except Refusal:
            return None


class _Lines:
    """Text lines of a file in binary mode, and how far they have got."""

    def __init__(self, raw: BinaryIO, encoding: str) -> None:
        self._raw = raw
        self._text: TextIO = io.TextIOWrapper(raw, encoding=encoding, errors="replace", newline="")

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        return next(self._text).replace("\0", "\ufffd")

    @property
    def position(self) -> int:
        """Bytes read, in whole blocks."""
        return self._raw.tell()


def _shown(header: list[str]) -> str:
    """Names of columns as far as they can be shown: those of a file that is no table cannot."""
    names = [name[:40] for name in header if name and name.isprintable()]
    if not names or len(names) < len(header) / 2:
        return "none that can be read: is it a CSV?"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _label(source: _Source, out: Path, how: Labelling, progress: Callable[[int], None]) -> Labelled:
    """Label every row and put the table in its place at once, when it is whole."""
    from models.language.labeller import merge, read_report
    from models.language.tokens import LONGEST
    from models.studies.schema import CHEXPERT, Label

    begun = time.monotonic()
    done = Labelled(labels={name: {"present": 0, "absent": 0, "uncertain": 0} for name in CHEXPERT})
    handle, name = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.resolve().parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([source.id_column, *CHEXPERT])
            for position, cells in source.rows():
                done.rows += 1
                if cells is None:
                    done.unreadable += 1
                    continue
                key, *texts = cells
                readings = [said.reading for text in texts for said in read_report(text)]
                labels = merge(readings, how)
                spoken = {k: Label(v).name.lower() for k, v in labels.items() if v is not Label.UNMENTIONED}
                for finding, value in spoken.items():
                    done.labels[finding][value] += 1
                done.labelled += bool(spoken)
                done.empty += not any(text.strip() for text in texts)
                done.silent += not spoken and any(text.strip() for text in texts)
                done.shortened += any(len(text) > LONGEST for text in texts)
                writer.writerow([key, *(spoken.get(finding, "") for finding in CHEXPERT)])
                if done.rows % 256 == 0:
                    progress(position)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    done.seconds = round(time.monotonic() - begun, 2)
    return done
