"""The site's private index: which studies, patients, accession numbers and reports belong together.

A small SQLite file **outside the store**, mode 0600, beside the site's secret. It holds keyed hashes, days
from each patient's secret origin (:meth:`client.ingest.pseudonym.Pseudonyms.day`), and where a report lies:
its place in the CSV, or the name of its file, which may be an accession number. No other identifier, no
calendar date, no text. It exists because these questions span all ingests of a site and need flat memory:
does a study come with two patients, do two patients share an accession number, which report belongs to which
study, which files were read before. All answers depend on what was recorded, not on the order in which it came.

Who owns a study, and which accession numbers it has, follows from the rows of the files that say so: a file
that comes back corrected takes its earlier claim back.

The day of a study is *not* anchored here: the writer does that for the whole store (see
:mod:`client.ingest.fold`).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from client.ingest.codes import Reason

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (item TEXT PRIMARY KEY, root TEXT, size INTEGER, mtime INTEGER, reader TEXT,
    code TEXT, image TEXT, study TEXT, patient TEXT, accession TEXT, day INTEGER, pass INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_study ON files (study, patient);
CREATE INDEX IF NOT EXISTS files_accession ON files (accession, study);
CREATE TABLE IF NOT EXISTS pixels (digest TEXT PRIMARY KEY, image TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reports (study TEXT PRIMARY KEY, places TEXT, usable INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS texts (study TEXT PRIMARY KEY, digest TEXT, row INTEGER) WITHOUT ROWID;
CREATE VIEW IF NOT EXISTS owners AS SELECT DISTINCT study, patient FROM files WHERE study IS NOT NULL
"""


class Seen(NamedTuple):
    """What became of a file: a reason code, or ``""`` for an image that was taken in.

    ``size``, ``mtime`` (ns) and ``reader`` (hash of how it was read) say whether it would be read the same again;
    ``root`` is the key of the folder that was ingested. ``study`` and what follows it are pseudonyms, ``None``
    where the file claims nothing.
    """

    root: str
    size: int
    mtime: int
    reader: str
    code: str
    image: str | None = None
    study: str | None = None
    patient: str | None = None
    accession: str | None = None
    day: int | None = None


class IndexFileError(RuntimeError):
    """The private index cannot be used. The text says why and what to do."""


class SiteIndex:
    """Opens the index at ``path``, or makes it. One process at a time.

    Args:
        path: a file outside every store.
        store: the store's folder; an index inside it is refused.

    Raises:
        IndexFileError: others may read the file, it lies in the store, another process holds it, or it is
            damaged.
    """

    def __init__(self, path: Path, store: Path) -> None:
        self.path = Path(path)
        if self.path.resolve().is_relative_to(Path(store).resolve()):
            raise IndexFileError(
                f"{self.path.name}: lies inside the store; give a path outside, beside the site's secret"
            )
        self._private_file()
        self._db = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        try:
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")  # held until close: two ingests never meet
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("BEGIN EXCLUSIVE")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _VERSION):
                raise IndexFileError(
                    f"{self.path.name}: version {version}, not {_VERSION}; use the release that made it"
                )
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version={_VERSION}")
        except (sqlite3.Error, IndexFileError) as error:
            self._db.close()
            raise self._explained(error) from None
        self._open = True
        self._pass = 0
        self.begin_pass()

    def _explained(self, error: Exception) -> IndexFileError:
        if isinstance(error, IndexFileError):
            return error
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            return IndexFileError(f"{self.path.name}: another ingest is using it; wait until it is done")
        return IndexFileError(f"{self.path.name}: damaged or not writable; restore it, or delete it and ingest again")

    def _private_file(self) -> None:
        """Make the file, or check that only its owner may read it; SQLite gives its side files the same
        mode.
        """
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise IndexFileError(f"{self.path.name}: cannot be opened ({error.strerror})") from None
        mode = os.fstat(handle).st_mode
        os.close(handle)
        if not stat.S_ISREG(mode) or mode & 0o077:
            raise IndexFileError(
                f"{self.path.name}: mode {stat.S_IMODE(mode):04o}; others must not read it: chmod 600 it"
            )

    def __enter__(self) -> SiteIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what is pending and release the file.

        What cannot be written, on a full disk say, is lost: the next ingest finds it again.
        """
        if self._open:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("COMMIT")
            self._db.close()
            self._open = False

    def commit(self) -> None:
        """Make what was recorded so far survive a kill. What a kill loses is recorded again by the next
        ingest.
        """
        self._db.execute("COMMIT")
        self._db.execute("BEGIN")

    def begin_pass(self) -> None:
        """Number the files that are recorded from here on, so that those not met again can be told."""
        self._pass = 1 + (self._one("SELECT max(pass) FROM files") or 0)

    def seen(self, item: str) -> Seen | None:
        """What was recorded of a file."""
        columns = ", ".join(Seen._fields)
        found = self._db.execute(f"SELECT {columns} FROM files WHERE item = ?", (item,)).fetchone()
        return Seen(*found) if found else None

    def record(self, item: str, seen: Seen) -> None:
        """Record a file, in place of what was known of it."""
        marks = ", ".join("?" * (2 + len(seen)))
        columns = ", ".join(("item", *Seen._fields, "pass"))
        self._db.execute(f"INSERT OR REPLACE INTO files ({columns}) VALUES ({marks})", (item, *seen, self._pass))

    def met(self, item: str) -> None:
        """The file is there still, unchanged."""
        self._db.execute("UPDATE files SET pass = ? WHERE item = ?", (self._pass, item))

    def files_of(self, study: str) -> list[tuple[str, Seen]]:
        """Items that claim a study, sorted, with what was recorded."""
        query = f"SELECT item, {', '.join(Seen._fields)} FROM files WHERE study = ? ORDER BY item"
        return [(item, Seen(*rest)) for item, *rest in self._db.execute(query, (study,))]

    def set_code(self, item: str, code: Reason) -> None:
        """The file was taken in and is not any more."""
        self._db.execute("UPDATE files SET code = ? WHERE item = ?", (code.value, item))

    def settle(self, root: str) -> bool:
        """Withdraw what files claimed that were in dispute and are gone from ``root``.

        Returns whether a file can be read now that was refused because its study was in dispute.
        """
        code = Reason.STUDY_TWO_PATIENTS.value
        query = "DELETE FROM files WHERE code = ? AND root = ? AND pass < ?"
        self._db.execute(query, (code, root, self._pass))
        query = """DELETE FROM files WHERE code = ? AND study IN
            (SELECT study FROM owners GROUP BY study HAVING count(*) = 1)"""
        return self._db.execute(query, (code,)).rowcount > 0

    def first_with(self, pixels: str, image: str) -> str:
        """The image that came first with these pixels (a keyed hash): ``image`` itself if none did."""
        self._db.execute("INSERT OR IGNORE INTO pixels VALUES (?, ?)", (pixels, image))
        return self._one("SELECT image FROM pixels WHERE digest = ?", pixels)

    def now_first(self, pixels: str, image: str) -> None:
        """The image that came first is not in the store (any more): ``image`` takes its place."""
        self._db.execute("INSERT OR REPLACE INTO pixels VALUES (?, ?)", (pixels, image))

    def add_study(self, patient: str, study: str, accession: str | None = None, day: int | None = None) -> None:
        """Record what one image's header says, without a file. All values are pseudonyms; the same again changes
        nothing.

        A study's images may differ in their date: the earliest counts.
        """
        item = f"{patient}/{study}/{accession}/{day}"
        self.record(item, Seen("", 0, 0, "", "", None, study, patient, accession, day))

    def patient_of(self, study: str) -> str | Reason | None:
        """The patient of a study; STUDY_TWO_PATIENTS where there are several; ``None`` for an unknown
        study.
        """
        found = self._db.execute("SELECT patient FROM owners WHERE study = ? LIMIT 2", (study,)).fetchall()
        if len(found) > 1:
            return Reason.STUDY_TWO_PATIENTS
        return found[0][0] if found else None

    def day_of(self, study: str) -> int | None:
        """Day of a study, from its patient's secret origin."""
        return self._one("SELECT min(day) FROM files WHERE study = ?", study)

    def disputed(self) -> Iterator[str]:
        """Studies that came with two patients, sorted. Nobody knows whose they are: none of their images
        may stay.
        """
        query = "SELECT study FROM owners GROUP BY study HAVING count(*) > 1 ORDER BY study"
        yield from (row[0] for row in self._db.execute(query))

    def study_by_accession(self, accession: str) -> str | Reason:
        """The one study with this accession number, or why there is not one.

        REPORT_UNMATCHED for none, SHARED_ACCESSION where it belongs to two patients, AMBIGUOUS_ACCESSION
        where to two studies of one.
        """
        query = (
            "SELECT DISTINCT owners.study, owners.patient FROM files JOIN owners ON owners.study = files.study "
            "WHERE accession = ?"
        )
        found = self._db.execute(query, (accession,)).fetchall()
        if not found:
            return Reason.REPORT_UNMATCHED
        if len({patient for _, patient in found}) > 1:
            return Reason.SHARED_ACCESSION
        if len({study for study, _ in found}) > 1:
            return Reason.AMBIGUOUS_ACCESSION
        return found[0][0]

    def clear_reports(self) -> None:
        """Forget which reports belong to which studies: they are matched anew in every ingest that names
        reports.
        """
        self._db.execute("DELETE FROM reports")

    def report_of(self, study: str) -> str | None:
        """What :meth:`set_report` noted for a study."""
        found = self._db.execute("SELECT places FROM reports WHERE study = ?", (study,)).fetchone()
        return found[0] if found else None

    def set_report(self, study: str, places: str, usable: bool) -> None:
        """Note where the report of a study lies; ``usable`` is false for several that contradict each
        other.
        """
        self._db.execute("INSERT OR REPLACE INTO reports VALUES (?, ?, ?)", (study, places, usable))

    def conflicting_reports(self) -> Iterator[str]:
        """Studies with reports that contradict each other, sorted."""
        yield from (row[0] for row in self._db.execute("SELECT study FROM reports WHERE NOT usable ORDER BY study"))

    def studies_with_report(self) -> int:
        """How many studies have a usable report."""
        return self._db.execute("SELECT count(*) FROM reports WHERE usable").fetchone()[0]

    def studies_without_report(self) -> Iterator[str]:
        """Undisputed studies that no usable report belongs to and that have no text from an earlier ingest, sorted."""
        query = (
            "SELECT study FROM owners WHERE study NOT IN (SELECT study FROM reports WHERE usable) "
            "AND study NOT IN (SELECT study FROM texts) GROUP BY study HAVING count(*) = 1 ORDER BY study"
        )
        yield from (row[0] for row in self._db.execute(query))

    def text_of(self, study: str) -> tuple[str, int] | None:
        """(digest of what was scrubbed, check sum of what the store got) of a study's text."""
        return self._db.execute("SELECT digest, row FROM texts WHERE study = ?", (study,)).fetchone()

    def set_text(self, study: str, digest: str, row: int) -> None:
        """Note that the store has the text of a study."""
        self._db.execute("INSERT OR REPLACE INTO texts VALUES (?, ?, ?)", (study, digest, row))

    def studies_with_usable_report(self) -> Iterator[str]:
        """Studies that a usable report belongs to, sorted."""
        yield from (row[0] for row in self._db.execute("SELECT study FROM reports WHERE usable ORDER BY study"))

    def _one(self, query: str, *values: str) -> Any:
        """The single value of the first row, or ``None``."""
        found = self._db.execute(query, values).fetchone()
        return found[0] if found else None
