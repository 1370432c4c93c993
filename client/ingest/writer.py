"""The only writer of study stores (DESIGN section 4): append-only, crash-safe, idempotent.

    with StoreWriter(path, findings=("Viral Pneumonia",), secret=site_secret(key_file)) as store:
        if not store.has(digest):
            store.add({"image": ..., "patient": ..., "study": ..., "digest": ..., "view": "PA"}, pixels)
        store.finish()

An item is committed by one line in ``journal.jsonl``, written after its pixels. A kill at any moment
therefore loses at most the item in hand; what a torn write left behind is dropped on the next opening.
``finish`` folds the journal into ``studies.parquet`` and ``store.json``; the same rows give the same bytes.

Besides rows the journal takes two later words about them: the text of a study's report, which may come after its
images, and that images were withdrawn, because nobody knows whose they are. Their pixels are overwritten.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
import zlib
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from client.ingest.codes import Reason
from client.ingest.fold import fold
from client.ingest.journal import Journal, StoreWriteError, encode, private, write_failure
from client.ingest.keys import SecretError, blinded_day, keyed, public_secret, site_secret
from client.ingest.quarantine import Quarantine
from client.ingest.rows import RowError, check_pixels, check_row, check_text
from client.ingest.shards import Shards
from models.config import config_hash, to_plain
from models.studies.pairing import PairingRules
from models.studies.schema import CHEXPERT, SCHEMA_VERSION, label_column, table_schema

__all__ = [
    "RowError",
    "SecretError",
    "StoreWriteError",
    "StoreWriter",
    "blinded_day",
    "keyed",
    "public_secret",
    "site_secret",
]

SHARD_BYTES = 1 << 30
SYNC_EVERY = 256
"""Items between two forced writes to the disk: what a power cut (not a kill) can cost."""


class _Known(NamedTuple):
    digest: str
    row: int  # CRC-32 of the row without its place
    pixels: int  # CRC-32 of the pixels


class StoreWriter:
    """Writes one store folder; holds its lock from construction to ``close``.

    Args:
        path: the store's folder; made where it is missing (its parent must exist).
        findings: free labels that rows may carry besides the 14 CheXpert classes. More can be added later.
        short_side: the largest short side in pixels that a stored image may have.
        preprocessing: plain values that say how pixels were made. Fixed for the life of the store.
        secret: the site's secret; quarantined items are named by a keyed hash under it.
        split_salt: salt of the patient-disjoint splits of this store.
        pairing: which prior ``finish`` names for a study. May differ from one finish to the next.
        wait_seconds: how long to wait for another writer before giving up.

    Raises:
        StoreWriteError: another writer holds the store, it is not writable, it is damaged, or it was begun
            with other preprocessing.
    """

    def __init__(
        self,
        path: Path,
        findings: Iterable[str] = (),
        short_side: int = 512,
        preprocessing: Mapping[str, Any] | None = None,
        *,
        secret: bytes,
        split_salt: str = "fedcxr",
        pairing: PairingRules | None = None,
        wait_seconds: float = 0.0,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self.path = Path(path)
        self.short_side = short_side
        self._secret = secret
        self._pairing = pairing or PairingRules()
        self._shards = Shards(self.path / "images", shard_bytes)
        self._images: dict[str, _Known] = {}
        self._digests: dict[str, str] = {}  # digest -> patient
        self._texts: dict[str, int] = {}  # study -> CRC-32 of its text
        self._lock_handle = -1
        self._unsynced = 0
        self._findings: set[str] = set()
        self._label_columns: set[str] = {label_column(f) for f in CHEXPERT}
        keyed(secret)  # refuses a short secret before anything is made
        header = {
            "schema": SCHEMA_VERSION,
            "short_side": short_side,
            "preprocessing": dict(preprocessing or {}),
            "split_salt": split_salt,
        }
        try:
            self.path.mkdir(mode=0o750, parents=True, exist_ok=True)  # others have no business in it
            (self.path / "images").mkdir(mode=0o750, exist_ok=True)
        except OSError as error:
            raise write_failure(error, self.path) from None
        self._lock(wait_seconds)
        try:
            self._journal = Journal(self.path / "journal.jsonl")
            self.quarantined = Quarantine(self.path / "quarantine.jsonl")
            self._recover(header)
            self._declare(findings)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Images committed so far."""
        return len(self._images)

    def key(self, *parts: str) -> str:
        """Keyed hash of ``parts`` under the site's secret."""
        return keyed(self._secret, *parts)

    def has(self, digest: str) -> bool:
        """Whether an image with this source digest is in the store."""
        return digest in self._digests

    def digest_of(self, image: str) -> str | None:
        """Source digest of the image with this key; None when it is not in the store."""
        known = self._images.get(image)
        return known.digest if known else None

    def same_pixels(self, image: str, pixels: np.ndarray) -> bool:
        """Whether the store holds this image with these pixels."""
        known = self._images.get(image)
        return known is not None and known.pixels == zlib.crc32(np.ascontiguousarray(pixels))

    def patient_of(self, digest: str) -> str | None:
        """Patient key of the image with this source digest; None when it is not in the store."""
        return self._digests.get(digest)

    def differs(self, row: Mapping[str, Any]) -> bool:
        """Whether the store holds this image with other values than ``row`` has (a label was edited, say)."""
        known = self._images.get(row["image"])
        return known is not None and known.row != zlib.crc32(encode(check_row(row, self._label_columns)))

    def add(self, row: Mapping[str, Any], pixels: np.ndarray) -> None:
        """Commit one image with its row.

        Args:
            row: values by column name of ``schema.COLUMNS`` and ``label:<finding>``. Needed: image, patient,
                study, digest (keyed hashes) and source. Assigned here and refused in ``row``: shard, offset,
                height, width, prior. ``day`` and ``order`` may have any origin, the same for all studies of a
                patient.
            pixels: uint8 [height, width], short side at most ``short_side``.

        Raises:
            RowError: a column, type or value that is not allowed, or an image that is there already.
            StoreWriteError: the disk is full or read-only; the store is as before the call.
        """
        values = check_row(row, self._label_columns)
        if values["image"] in self._images or values["digest"] in self._digests:
            raise RowError("this image is in the store already; ask has() or digest_of() before add()")
        data = check_pixels(pixels, self.short_side)
        text = encode(values)
        height, width = pixels.shape
        place = {"height": height, "width": width, "row": zlib.crc32(text), **self._shards.write(data)}
        known = _Known(values["digest"], place["row"], place["crc"])
        self._journal.append_text(text[:-1] + b"," + encode(place)[1:])
        self._shards.end += len(data)
        self._images[values["image"]] = known
        self._digests[values["digest"]] = values["patient"]
        self._changed()

    def set_text(self, study: str, findings: str | None, impression: str | None) -> int:
        """Give all images of a study this text, in place of any they have; ``None`` for a section it lacks.

        Returns a check sum of the text, by which :meth:`text_sum` tells whether the store still has it.
        """
        line = {"text": study, "findings": findings, "impression": impression}
        check_text(line)
        text = encode(line)
        if self._texts.get(study) != zlib.crc32(text):
            self._journal.append_text(text)
            self._texts[study] = zlib.crc32(text)
            self._changed()
        return self._texts[study]

    def text_sum(self, study: str) -> int | None:
        """What :meth:`set_text` returned for the text that the store has of this study."""
        return self._texts.get(study)

    def withdraw(self, studies: Collection[str]) -> int:
        """Take all images of these studies out: they leave the table, and their pixels are overwritten by zeros.

        Returns how many there were. Reads the whole journal; call it once for many studies.
        """
        going = {}
        for _, _, line in self._journal.lines() if studies else ():
            if "image" in line and line["study"] in studies and line["image"] in self._images:
                going[line["image"]] = line
        for image, line in going.items():
            place = {name: line[name] for name in ("shard", "offset", "height", "width")}
            self._journal.append({"withdrawn": image, **place})
            self._forget(image)
            self._shards.overwrite(place)
            self._changed()
        return len(going)

    def quarantine(self, code: Reason, item: str) -> None:
        """Note that ``item`` was refused for ``code``. Only its keyed hash is kept, and once."""
        self.quarantined.note(code, self.key("item", item))

    def release(self, item: str) -> None:
        """Drop the notes of an item that was mended and is in the store now."""
        self.quarantined.release((self.key("item", item),))

    def sync(self) -> None:
        """Force everything committed so far to the disk."""
        try:
            self._shards.sync()
            self._journal.sync()
            self.quarantined.sync()
        except OSError as error:
            raise write_failure(error, self.path / "journal.jsonl") from None
        self._unsynced = 0

    def finish(self) -> dict[str, Any]:
        """Write ``studies.parquet`` and ``store.json``; return the latter's content. May be called again.

        Raises:
            StoreWriteError: the disk is full or read-only; the previous table, if any, is still whole.
        """
        self.sync()
        rows = _Standing(self._journal)
        findings = (*CHEXPERT, *sorted(self._findings))
        counts: Counter[str] = Counter(images=0, pairs=0, shards=0)
        sources: Counter[str] = Counter()
        pixels = hashlib.sha256()
        temporary = self.path / ".studies.parquet.tmp"
        try:
            with (
                open(temporary, "wb", opener=private) as file,
                pq.ParquetWriter(file, table_schema(findings), compression="zstd") as table,
            ):
                for part in fold(rows, findings, self._pairing):
                    table.write_table(part)
                    counts["images"] += len(part)
                    counts["pairs"] += len(part) - part["prior"].null_count
                    counts["shards"] = max(counts["shards"], 1 + pc.max(part["shard"]).as_py())
                    sources.update(part["source"].to_pylist())
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise write_failure(error, self.path / "studies.parquet") from None
        for row in rows:
            pixels.update(self._images[row["image"]].pixels.to_bytes(4, "big"))
        with open(temporary, "rb") as file:
            parquet = hashlib.file_digest(file, "sha256")
        header = rows.header
        about = {
            "schema_version": SCHEMA_VERSION,
            "counts": {**counts, "studies": rows.studies, "patients": rows.patients},
            "sources": dict(sorted(sources.items())),
            "findings": list(findings),
            "short_side": header["short_side"],
            "preprocessing": header["preprocessing"],
            "preprocessing_hash": config_hash(header["preprocessing"]),
            "pairing": to_plain(self._pairing),
            "split_salt": header["split_salt"],
            "table_sha256": parquet.hexdigest(),
            "pixels_sha256": pixels.hexdigest(),  # over the CRC-32 of every image, in order
        }
        # The table goes first: a reader that finds it beside the old store.json sees that the two do not
        # match.
        self._publish(temporary, "studies.parquet")
        self._replace("store.json", json.dumps(about, indent=1, sort_keys=True).encode() + b"\n")
        return about

    def _changed(self) -> None:
        self._unsynced += 1
        if self._unsynced >= SYNC_EVERY:
            self.sync()

    def _forget(self, image: str) -> None:
        del self._digests[self._images.pop(image).digest]

    def close(self) -> None:
        """Release files and lock. What was committed stays; ``finish`` is not implied."""
        for opened in (getattr(self, "_journal", None), getattr(self, "quarantined", None)):
            if opened is not None:
                opened.close()
        self._shards.close()
        if self._lock_handle >= 0:
            os.close(self._lock_handle)
            self._lock_handle = -1

    def _lock(self, wait_seconds: float) -> None:
        deadline = time.monotonic() + wait_seconds
        try:
            self._lock_handle = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise write_failure(error, self.path / ".lock") from None
        while True:
            try:
                fcntl.flock(self._lock_handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    self.close()
                    raise StoreWriteError(
                        f"{self.path}: another process is writing to this store"
                        f"{f' (waited {wait_seconds:g} s)' if wait_seconds else ''}; "
                        "wait for it to end and run again"
                    ) from None
                time.sleep(min(0.1, wait_seconds))

    def _recover(self, header: dict[str, Any]) -> None:
        """Load what is committed, and drop what a kill or a power cut left half-written."""
        whole, recent, withdrawn = self._read_journal(header)
        bad = next((i for i, (_, row) in enumerate(recent) if not self._shards.whole(row)), None)
        if bad is not None:
            if bad == 0 and len(self._images) > len(recent):
                raise StoreWriteError(
                    f"images/{self._shards.path(recent[0][1]['shard']).name}: shorter than the journal says, or damaged; "
                    "restore the store from its backup, or import into a new folder"
                )
            whole = recent[bad][0]
        if self._journal.size > whole:
            self._journal.truncate(whole)
        if bad is not None:  # what came after the bad row is gone with it: read again what stays
            whole, recent, withdrawn = self._read_journal(header)
        for place in withdrawn:
            self._shards.overwrite(place)
        if not self._journal.size:
            self._journal.append({"store": header})
        self._shards.open(self._shards.number, self._shards.end)

    def _read_journal(
        self, header: dict[str, Any]
    ) -> tuple[int, list[tuple[int, dict[str, Any]]], list[dict[str, Any]]]:
        """(bytes of whole lines, the last rows with their positions, the last withdrawals); fills the indexes.

        The last are those that no sync need have covered.
        """
        whole = self._shards.number = self._shards.end = 0
        recent: dict[str, tuple[int, dict[str, Any]]] = {}
        withdrawn: deque[dict[str, Any]] = deque(maxlen=SYNC_EVERY)
        for index in (self._images, self._digests, self._texts):
            index.clear()
        for position, whole, line in self._journal.lines():  # noqa: B007
            if "store" in line:
                _same_header(line["store"], header)
            elif "image" in line:
                self._images[line["image"]] = _Known(line["digest"], line["row"], line["crc"])
                self._digests[line["digest"]] = line["patient"]
                self._shards.number = line["shard"]
                self._shards.end = line["offset"] + line["height"] * line["width"]
                recent[line["image"]] = (position, line)
                if len(recent) > SYNC_EVERY:
                    del recent[next(iter(recent))]
            elif "withdrawn" in line:
                self._forget(line["withdrawn"])
                recent.pop(line["withdrawn"], None)
                withdrawn.append(line)
            elif "text" in line:
                self._texts[line["text"]] = zlib.crc32(encode(line))
            elif "findings" in line:
                self._allow(line["findings"])
        return whole, list(recent.values()), list(withdrawn)

    def _declare(self, findings: Iterable[str]) -> None:
        new = sorted({f for f in findings if f not in CHEXPERT} - self._findings)
        if new:
            self._allow(new)
            self._journal.append({"findings": new})

    def _allow(self, findings: Iterable[str]) -> None:
        self._label_columns |= {label_column(f) for f in findings}
        self._findings |= set(findings)

    def _publish(self, temporary: Path, name: str) -> None:
        try:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, self.path / name)
            folder = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise write_failure(error, self.path / name) from None

    def _replace(self, name: str, data: bytes) -> None:
        temporary = self.path / f".{name}.tmp"
        try:
            with open(temporary, "wb", opener=private) as file:
                file.write(data)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise write_failure(error, self.path / name) from None
        self._publish(temporary, name)


class _Standing:
    """The rows that stand, with their texts, in the order of the journal; read from it each time they are gone through,
    so that a large store needs little memory.
    """

    def __init__(self, journal: Journal) -> None:
        self.header: dict[str, Any] = {}
        self._journal = journal
        self._rows: dict[str, int] = {}  # image -> where its line begins
        self._texts: dict[str, int] = {}  # study -> likewise
        studies, patients = set(), set()
        for position, _, line in journal.lines():
            if "store" in line:
                self.header = line["store"]
            elif "image" in line:
                self._rows[line["image"]] = position
            elif "withdrawn" in line:
                del self._rows[line["withdrawn"]]
            elif "text" in line:
                self._texts[line["text"]] = position
        for row in self:
            studies.add(row["study"])
            patients.add(row["patient"])
        self.studies, self.patients = len(studies), len(patients)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with open(self._journal.path, "rb") as lines, open(self._journal.path, "rb") as others:
            for position in self._rows.values():
                lines.seek(position)
                row = json.loads(lines.readline())
                del row["crc"], row["row"]
                if row["study"] in self._texts:
                    others.seek(self._texts[row["study"]])
                    text = json.loads(others.readline())
                    row |= {"findings": text["findings"], "impression": text["impression"]}
                yield row


def _same_header(stored: dict[str, Any], given: dict[str, Any]) -> None:
    """Refuse to mix two ways of making pixels in one store."""
    stored_plain, given_plain = (json.loads(json.dumps(h, sort_keys=True)) for h in (stored, given))
    for name in sorted(stored_plain.keys() | given_plain.keys()):
        if stored_plain.get(name) != given_plain.get(name):
            raise StoreWriteError(
                f"this store was begun with {name} = {stored_plain.get(name)!r}, now "
                f"{given_plain.get(name)!r} is "
                "asked; use the same value, or import into a new folder"
            )
