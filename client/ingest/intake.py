"""A PACS export as it is -> a study store: DICOM files, then the reports that belong to them.

    with Intake(folder, store, index, settings, secret) as intake:
        summary = intake.run()          # again and again for a folder that grows

Files are read in child processes (:mod:`client.ingest.readers`), judged and committed here, in the order of their
names: the same folder gives the same store, byte for byte, however many children there are and however often the
run was killed and begun again. A file that was read before and has not changed since is not read again.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from client.ingest.codes import Reason
from client.ingest.deidentify import age_in_years, study_date
from client.ingest.keys import keyed
from client.ingest.pseudonym import Pseudonyms
from client.ingest.readers import Readers
from client.ingest.reading import ReadConfig, Reading, Refused
from client.ingest.reports import ReportFiles, ReportsConfig
from client.ingest.sandbox import Sandbox
from client.ingest.siteindex import IndexFileError, Seen, SiteIndex
from client.ingest.texts import take_reports
from client.ingest.walk import files_below, item_name
from client.ingest.writer import RowError, StoreWriter
from models.config import ConfigError, config, config_hash, to_plain
from models.studies.pairing import PairingRules
from models.studies.schema import SEXES, age_band

VERSION = 1
"""Of what this file makes of a header; with it, files are read anew."""

Progress = Callable[[str, int, int], None]
"""Takes what is being done ("images", "reports"), how many are done, and how many there are."""

_COMMIT_EVERY = 256
_MOST_PASSES = 3
_CLOCK = 1 << 20
_AGAIN = frozenset({Reason.TIME_LIMIT, Reason.MEMORY_LIMIT, Reason.CRASHED, Reason.MISSING_FILE})
"""Codes that another run may not meet: the machine was busy, the file was being moved."""


@config
class Settings:
    """How a site ingests. ``source``: name of the site, kept with every image."""

    source: str
    reading: ReadConfig = ReadConfig()
    reports: ReportsConfig = ReportsConfig()
    pairing: PairingRules = PairingRules()
    workers: int = 0  # reading children; 0: one a core
    wait_seconds: float = 0.0  # how long to wait for another writer of the same store

    def check(self) -> None:
        if self.workers < 0:
            raise ConfigError(f"workers {self.workers}: give 0 for one a core, or a number of processes")
        if not self.reading.digest:
            raise ConfigError("reading.digest false: a store tells copies of a file apart by it; leave it at true")


@dataclass
class Summary:
    """What an ingest did.

    Attributes:
        accepted: images taken in. duplicate: images that are there already. changed: of these, images whose header
            now says something else; the store keeps what it has. withdrawn: images taken out again, because their
            study came with two patients.
        quarantined: items refused, by reason code: image files, and how reports and studies do not fit together.
        pairs: images with a prior, in the whole store. reports: how matching went; ``None`` without reports.
        replaced: reading children that died or had to be killed. seconds: wall time.
    """

    accepted: int = 0
    duplicate: int = 0
    changed: int = 0
    withdrawn: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    pairs: int = 0
    reports: dict[str, int] | None = None
    replaced: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class _File:
    """One file: its item (keyed hash of where it lies), and what is known of it if it has not changed."""

    path: Path
    item: str
    size: int
    mtime: int
    known: Seen | None


class Intake:
    """Holds the store and the private index from construction to ``close``.

    Args:
        folder: with the DICOM files, at any depth.
        store: the study store to make or to add to.
        index: the site's private index (:mod:`client.ingest.siteindex`), a file outside the store.
        secret: the site's secret.
        reports: a CSV, or a folder with a text file per study.

    Raises:
        ConfigError: a folder is missing, the store lies in it, or the reports lack a column.
        StoreWriteError, IndexFileError: another ingest is at work, or they cannot be written.
    """

    def __init__(
        self, folder: Path, store: Path, index: Path, settings: Settings, secret: bytes, reports: Path | None = None
    ) -> None:
        if not folder.is_dir():
            raise ConfigError(f"dicom {folder}: no such folder; give the folder that holds the DICOM files")
        if store.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(f"store {store}: lies among the DICOM files; give a folder outside {folder}")
        self.folder = folder.resolve()
        self.settings = settings
        self._pseudonyms = Pseudonyms(secret)
        self._secret = secret
        self._reports = ReportFiles(reports, settings.reports) if reports else None
        self._reader = config_hash({"reading": to_plain(settings.reading), "version": VERSION})
        self._workers = settings.workers or len(os.sched_getaffinity(0))
        self._root = keyed(secret, "root", item_name(self.folder))
        self._moved: set[str] = set()
        self._latest: int | None = None
        self._writer = StoreWriter(
            store,
            short_side=settings.reading.decode.framing.short_side,
            preprocessing={"dicom": to_plain(settings.reading.decode)},
            secret=secret,
            pairing=settings.pairing,
            wait_seconds=settings.wait_seconds,
        )
        try:
            self._index = SiteIndex(index, store)
        except BaseException:
            self._writer.close()
            raise
        self._readers = Readers(settings.reading, self._workers)

    def __enter__(self) -> Intake:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the children, release store and index. What was committed stays."""
        self._readers.close()
        self._index.close()
        self._writer.close()

    def run(self, progress: Progress = lambda *_: None, rested: float = 0.0) -> Summary:
        """Take in what is new in the folder, match the reports, and write the store's table.

        ``rested``: a file that changed within so many seconds is left for another run.

        Raises:
            StoreWriteError: the disk is full or read-only. What was committed is whole; run again to go on.
            IndexFileError: likewise, of the private index.
            SandboxError: no reading child can be started.
        """
        begun = time.monotonic()
        summary = Summary()
        self._latest = time.time_ns() - int(rested * 1e9) if rested else None
        try:
            refused = self._images(summary, progress)
            if self._reports is not None:
                matched, written = take_reports(
                    self._reports, self._met(), self._readers, self._writer, self._index, self._pseudonyms, progress
                )
                refused += Counter({code.value: count for code, count in matched.problems.items()})
                summary.reports = {
                    "read": matched.read,
                    "matched": matched.matched,
                    "written": written,
                    "duplicate": matched.duplicates,
                    "addenda": matched.addenda,
                    "ignored_files": matched.ignored,
                }
            summary.pairs = self._writer.finish()["counts"]["pairs"]
            self._index.commit()
        except sqlite3.Error as error:
            raise IndexFileError(
                f"{self._index.path.name}: cannot be written ({error}); free space there and run again: it goes on from here"
            ) from None
        summary.quarantined = dict(sorted(refused.items()))
        summary.replaced = self._readers.replaced
        summary.seconds = time.monotonic() - begun
        return summary

    def _images(self, summary: Summary, progress: Progress) -> Counter[str]:
        """All files, until nothing more follows from what was found; refused files by code."""
        total = sum(1 for _ in files_below(self.folder))
        for _ in range(_MOST_PASSES):
            already, refused = summary.accepted, Counter()
            summary.duplicate = 0
            self._index.begin_pass()
            answers = self._readers.each(self._files(), _read, lambda file: file.known is None)
            for done, (file, answer) in enumerate(answers, start=1):
                code = (
                    self._take(file, answer, summary)
                    if answer
                    else Reason(file.known.code)
                    if file.known.code
                    else None
                )
                if answer is None:
                    self._index.met(file.item)
                    summary.duplicate += code is None
                if code is not None:
                    refused[code.value] += 1
                if done % _COMMIT_EVERY == 0:
                    self._checkpoint()
                progress("images", done, total)
            summary.duplicate = max(0, summary.duplicate - already)
            if not self._settle(summary, refused):
                break
        self._checkpoint()
        return refused

    def _files(self) -> Iterator[_File]:
        for path in files_below(self.folder):
            item = self._writer.key("item", item_name(path))
            try:
                status = os.lstat(path)
                size, mtime = status.st_size, status.st_mtime_ns
            except OSError:
                size = mtime = -1
            if self._latest is not None and mtime > self._latest:
                continue
            seen = self._index.seen(item)
            same = seen is not None and (seen.size, seen.mtime, seen.reader) == (size, mtime, self._reader)
            yield _File(path, item, size, mtime, seen if same and self._stands(item, seen) else None)

    def _met(self) -> Iterator[tuple[Path, str]]:
        for path in files_below(self.folder):
            yield path, self._writer.key("item", item_name(path))

    def _stands(self, item: str, seen: Seen) -> bool:
        """Whether what the index says of a file is still so in the store."""
        if not seen.code:
            return self._writer.digest_of(seen.image or "") is not None
        return seen.code not in _AGAIN and seen.code in self._writer.quarantined.codes_of(item)

    def _take(self, file: _File, answer: tuple[Reading | Refused, str], summary: Summary) -> Reason | None:
        """Commit what was read of one file, or note why not."""
        read, pixels = answer
        seen = Seen(self._root, file.size, file.mtime, self._reader, "")
        if isinstance(read, Refused):
            code: Reason | None = read.reason
        else:
            seen = self._claim(seen, read)
            self._index.record(file.item, seen)  # first: it takes the place of what the file said before
            code, image = self._commit(seen, read, pixels, summary) if seen.study else (Reason.MISSING_UID, None)
            seen = seen._replace(image=image)
            if code in (Reason.CONFLICTING_DUPLICATE, Reason.SAME_PIXELS):  # no image, no claim
                seen = seen._replace(study=None, patient=None, accession=None, day=None)
        self._index.record(file.item, seen._replace(code=code.value if code else ""))
        noted = self._writer.quarantined.codes_of(file.item)
        if noted - {code}:
            self._writer.quarantined.release((file.item,))
        if code is not None:
            self._writer.quarantined.note(code, file.item)
        return code

    def _claim(self, seen: Seen, read: Reading) -> Seen:
        """What the header says, as pseudonyms; without a study if an identifier is missing."""
        header, hide = read.header, self._pseudonyms
        if not (header.sop_instance_uid and header.study_instance_uid):
            return seen
        if header.patient_id:
            patient = hide.patient(header.patient_id, header.issuer_of_patient_id)
        else:  # the gate lets it in by configuration: each such study is a patient of its own
            patient = hide.patient(header.study_instance_uid, "study without a patient")
        date = study_date(header)
        return seen._replace(
            image=hide.image(header.sop_instance_uid),
            study=hide.study(header.study_instance_uid),
            patient=patient,
            accession=hide.accession(header.accession_number) if header.accession_number else None,
            day=None if date is None else hide.day(patient, date),
        )

    def _commit(self, seen: Seen, read: Reading, pixels: str, summary: Summary) -> tuple[Reason | None, str | None]:
        """Add the image, or say why not; with the key of the image in the store that the file stands for."""
        if isinstance(self._index.patient_of(seen.study), Reason):
            return Reason.STUDY_TWO_PATIENTS, None
        row = self._row(seen, read)
        stored = self._writer.digest_of(seen.image)
        if stored is not None and self._writer.patient_of(stored) != seen.patient:
            self._moved.add(seen.study)  # the archive has corrected whose it is: taken out below, and in again
            return None, seen.image
        if stored is not None:
            if stored != row["digest"] and not self._writer.same_pixels(seen.image, read.pixels):
                return Reason.CONFLICTING_DUPLICATE, None
            summary.duplicate += 1
            summary.changed += stored != row["digest"]
            return None, seen.image
        first = self._first_with(self._writer.key("pixels", pixels), seen.image)
        if first != seen.image:
            if self._writer.patient_of(self._writer.digest_of(first)) != seen.patient:
                return Reason.SAME_PIXELS, None
            summary.duplicate += 1
            return None, first
        try:
            self._writer.add(row, read.pixels)
        except RowError:
            return Reason.BAD_ROW, None
        summary.accepted += 1
        return None, seen.image

    def _first_with(self, pixels: str, image: str) -> str:
        """The image in the store that has these pixels; ``image`` itself where there is none."""
        first = self._index.first_with(pixels, image)
        if first != image and self._writer.digest_of(first) is None:
            self._index.now_first(pixels, image)
            return image
        return first

    def _row(self, seen: Seen, read: Reading) -> dict[str, Any]:
        header = read.header
        sex = header.patient_sex.strip().upper()
        return {
            "image": seen.image,
            "patient": seen.patient,
            "study": seen.study,
            "digest": self._writer.key("file", read.digest),
            "source": self.settings.source,
            "day": seen.day,
            "order": None if seen.day is None else self._second(header.study_time, seen.patient),
            "view": read.view,
            "sex": sex if sex in SEXES else "UNKNOWN",
            "age_band": age_band(age_in_years(header)),
            "flags": ",".join(flag.replace("_", "-") for flag in read.flags) or None,
        }

    def _second(self, time_of_day: str, patient: str) -> int | None:
        """Second of the day, from a secret origin of the patient: it orders the studies of one day."""
        text = time_of_day.replace(":", "").strip()[:6].ljust(6, "0")
        if not (time_of_day.strip() and text.isascii() and text.isdigit()):
            return None
        seconds = int(text[:2]) * 3600 + int(text[2:4]) * 60 + int(text[4:])
        return seconds + int(keyed(self._secret, "clock", patient)[:15], 16) % _CLOCK

    def _settle(self, summary: Summary, refused: Counter[str]) -> bool:
        """Take out what is in dispute; whether another pass can take something in."""
        disputed = set(self._index.disputed())
        for study in sorted(disputed):
            for item, seen in self._index.files_of(study):
                if not seen.code:
                    self._index.set_code(item, Reason.STUDY_TWO_PATIENTS)
                    self._writer.quarantined.note(Reason.STUDY_TWO_PATIENTS, item)
                    refused[Reason.STUDY_TWO_PATIENTS.value] += 1
        summary.withdrawn += self._writer.withdraw(disputed | self._moved)
        moved, self._moved = bool(self._moved), set()
        return self._index.settle(self._root) or moved

    def _checkpoint(self) -> None:
        """Force store and index to the disk, in this order: the index never knows more than the store."""
        self._writer.sync()
        self._index.commit()


def _read(sandbox: Sandbox, file: _File) -> tuple[Reading | Refused, str]:
    """(what the child says, hash of the pixels), in a thread of the readers."""
    read = sandbox.read(file.path)
    return read, hashlib.sha256(read.pixels).hexdigest() if isinstance(read, Reading) else ""
