"""De-identified DICOM files for a shared evaluation set.

    exporter = Exporter(out, Pseudonyms(secret), ExportConfig())
    for path, result in exporter.run(paths, workers=4):   # result: the file written, or a reason code
        ...
    exporter.counts   # {"exported": 12, "duplicate": 1, "burned_in_text": 2}

Files are parsed and decoded in the child (:mod:`client.ingest.radiograph`), which never sees the site's
secret; the pseudonyms are made here. Names of files and folders are pseudonyms too. The same input gives
the same bytes, so a second run adds nothing, and a kill leaves whole files only.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from client.ingest.codes import Reason
from client.ingest.deidentify import deidentify
from client.ingest.gate import Gate
from client.ingest.journal import write_failure
from client.ingest.limits import Limits
from client.ingest.pool import Pool
from client.ingest.ps315 import TableAge, load_table
from client.ingest.pseudonym import Pseudonyms
from client.ingest.quiet import quiet
from client.ingest.radiograph import Radiograph
from client.ingest.refusal import Refusal
from client.ingest.siteindex import SiteIndex
from models.config import ConfigError, config, to_plain

WORKER = "client.ingest.radiograph:serve"
"""What the pool of child processes calls."""


@config
class ExportConfig:
    """What may be exported.

    Attributes:
        table: how old the confidentiality table may be.
        text_letters: letters in one line of the image's margin from which on it is refused as written on.
    """

    table: TableAge = TableAge()
    text_letters: int = 5
    gate: Gate = Gate()
    limits: Limits = Limits()

    def check(self) -> None:
        if self.text_letters < 1:
            raise ConfigError(f"text_letters: {self.text_letters} is not allowed; give at least 1 letter")
        if self.gate.burned_in != "refuse":
            raise ConfigError("gate.burned_in: 'accept' is not allowed in an export; leave it at 'refuse'")
        if self.gate.patient_id != "require":
            raise ConfigError("gate.patient_id: 'allow_absent' is not allowed in an export; leave it at 'require'")


class Exporter:
    """Writes de-identified files below ``out``: ``<patient>/<instance>.dcm``.

    Args:
        out: a folder; made where it is missing (its parent must exist).
        pseudonyms: of this site.
        index: the site's private index, if there is one: studies in dispute between two patients are refused.
        today: the day against which the table's age is reckoned.

    Attributes:
        warning: set when the confidentiality table is getting old.
        counts: outcomes so far by code, with ``exported`` and ``duplicate``.

    Raises:
        TableError: the confidentiality table is damaged, or older than allowed.
        StoreWriteError: ``out`` cannot be made.
    """

    def __init__(
        self,
        out: Path,
        pseudonyms: Pseudonyms,
        settings: ExportConfig | None = None,
        index: SiteIndex | None = None,
        today: datetime.date | None = None,
    ) -> None:
        self.out = Path(out)
        self.settings = settings or ExportConfig()
        self.counts: Counter[str] = Counter()
        self._pseudonyms = pseudonyms
        self._index = index
        self._table = load_table()
        self.warning = self._table.check_age(self.settings.table, today or datetime.date.today())
        try:
            self.out.mkdir(exist_ok=True)
        except OSError as error:
            raise write_failure(error, self.out) from None

    def run(self, paths: Sequence[Path], workers: int = 1) -> Iterator[tuple[Path, Path | Reason]]:
        """Read ``paths`` in child processes and write what may leave; (path, result) in the order of
        ``paths``.

        Raises:
            StoreWriteError, TableError: as :meth:`write`.
        """
        limits = self.settings.limits
        with Pool(WORKER, workers, limits.wall_seconds, limits.memory_bytes) as pool:
            answers = pool.map([self.task(path) for path in paths])
            for path, (answer, pixels) in zip(paths, answers, strict=True):
                yield path, self.write(answer, pixels)

    def task(self, path: Path) -> dict[str, Any]:
        """What the child is asked for one file."""
        settings = self.settings
        return {
            "path": str(path),
            "text": settings.text_letters,
            "gate": to_plain(settings.gate),
            "limits": to_plain(settings.limits),
        }

    def write(self, answer: Mapping[str, Any], pixels: bytes | memoryview) -> Path | Reason:
        """Export what a child answered: the file's path, or why there is none.

        Raises:
            StoreWriteError: the disk is full or read-only; what was exported before is whole.
            TableError: the table forbids an attribute that this software writes.
        """
        try:
            if "code" in answer:
                raise Refusal(Reason(answer["code"]))
            image = Radiograph.from_plain(answer, pixels)
            self._refuse_disputed(image)
            path = self._export(image)
        except Refusal as refusal:
            self.counts[refusal.reason.value] += 1
            return refusal.reason
        except ValueError:  # the child sent nonsense: a hostile file took it over
            self.counts[Reason.CRASHED.value] += 1
            return Reason.CRASHED
        return path

    def _refuse_disputed(self, image: Radiograph) -> None:
        if self._index is not None:
            patient = self._index.patient_of(self._pseudonyms.study(image.header.study_instance_uid))
            if isinstance(patient, Reason):
                raise Refusal(patient)

    def _export(self, image: Radiograph) -> Path:
        with quiet():
            dataset = deidentify(image, self._pseudonyms, self._table)
            data = dicom_bytes(dataset)
        folder = self.out / str(dataset.PatientID)
        path = folder / f"{dataset.SOPInstanceUID}.dcm"
        if path.exists():
            if path.read_bytes() != data:
                raise Refusal(Reason.CONFLICTING_DUPLICATE)
            self.counts["duplicate"] += 1
            return path
        temporary = folder / f".{path.name}.{os.getpid()}"
        try:
            folder.mkdir(exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise write_failure(error, path) from None
        self.counts["exported"] += 1
        return path


def dicom_bytes(dataset: Dataset) -> bytes:
    """``dataset`` as a file: preamble of zeros, its file meta information, explicit VR little endian."""
    dataset.preamble = b"\0" * 128
    out = BytesIO()
    dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()
