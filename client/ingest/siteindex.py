"""The site's private index: which studies, patients, accession numbers and reports belong together.

A small SQLite file **outside the store**, mode 0600, beside the site's secret. It holds keyed hashes, days
from each patient's secret origin (:meth:`client.ingest.pseudonym.Pseudonyms.day`), and where a report lies:
its place in the CSV, or the name of its file, which may be an accession number. No other identifier, no
calendar date, no text. It exists because three questions span all ingests of a site and need flat memory:
does a study come with two patients, do two patients share an accession number, and which report belongs to
which study. All answers depend on what was recorded, not on the order in which it came.

The day of a study is *not* anchored here: the writer does that for the whole store (see
:mod:`client.ingest.fold`).
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from client.ingest.codes import Reason

_VERSION = 1
_SCHEMA = """ CREATE TABLE IF NOT EXISTS owners (study TEXT, patient TEXT, PRIMARY KEY (study, patient))
WITHOUT ROWID; CREATE TABLE IF NOT EXISTS days (study TEXT PRIMARY KEY, day INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS accessions (accession TEXT, study TEXT, PRIMARY KEY (accession, study)) WITHOUT
ROWID; CREATE TABLE IF NOT EXISTS reports (study TEXT PRIMARY KEY, places TEXT, usable INTEGER) WITHOUT
ROWID
"""


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
        """Write what is pending and release the file."""
        if self._open:
            self._db.execute("COMMIT")
            self._db.close()
            self._open = False

    def commit(self) -> None:
        """Make what was recorded so far survive a kill. What a kill loses is recorded again by the next
        ingest.
        """
        self._db.execute("COMMIT")
        self._db.execute("BEGIN")

    def add_study(self, patient: str, study: str, accession: str | None = None, day: int | None = None) -> None:
        """Record what one image's header says. All values are pseudonyms; the same again changes nothing.

        A study's images may differ in their date: the earliest counts.
        """
        self._db.execute("INSERT OR IGNORE INTO owners VALUES (?, ?)", (study, patient))
        if accession is not None:
            self._db.execute("INSERT OR IGNORE INTO accessions VALUES (?, ?)", (accession, study))
        if day is not None:
            self._db.execute(
                "INSERT INTO days VALUES (?, ?) ON CONFLICT (study) DO UPDATE SET day = min(day, excluded.day)",
                (study, day),
            )

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
        found = self._db.execute("SELECT day FROM days WHERE study = ?", (study,)).fetchone()
        return found[0] if found else None

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
            "SELECT owners.study, patient FROM accessions JOIN owners ON owners.study = accessions.study "
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
        """Undisputed studies that no usable report belongs to, sorted."""
        query = (
            "SELECT study FROM owners WHERE study NOT IN (SELECT study FROM reports WHERE usable) "
            "GROUP BY study HAVING count(*) = 1 ORDER BY study"
        )
        yield from (row[0] for row in self._db.execute(query))
