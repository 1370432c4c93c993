"""The only writer of study stores (DESIGN section 4): append-only, crash-safe, idempotent.

    with StoreWriter(path, findings=("Viral Pneumonia",), secret=site_secret(key_file)) as store:
        if not store.has(digest):
            store.add({"image": ..., "patient": ..., "study": ..., "digest": ..., "view": "PA"}, pixels)
        store.finish()

An item is committed by one line in ``journal.jsonl``, written after its pixels. A kill at any moment
therefore loses at most the item in hand; what a torn write left behind is dropped on the next opening.
``finish`` folds the journal into ``studies.parquet`` and ``store.json``; the same rows give the same bytes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
import zlib
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from client.ingest.codes import Reason
from client.ingest.fold import fold
from client.ingest.journal import Journal, StoreWriteError, encode, write_at, write_failure
from client.ingest.keys import SecretError, blinded_day, keyed, public_secret, site_secret
from client.ingest.rows import RowError, check_pixels, check_row
from models.config import config_hash
from models.studies.schema import CHEXPERT, SCHEMA_VERSION, label_column

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


class StoreWriter:
    """Writes one store folder; holds its lock from construction to ``close``.

    Args:
        path: the store's folder; made where it is missing (its parent must exist).
        findings: free labels that rows may carry besides the 14 CheXpert classes. More can be added later.
        short_side: the largest short side in pixels that a stored image may have.
        preprocessing: plain values that say how pixels were made. Fixed for the life of the store.
        secret: the site's secret; quarantined items are named by a keyed hash under it.
        split_salt: salt of the patient-disjoint splits of this store.
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
        wait_seconds: float = 0.0,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self.path = Path(path)
        self.short_side = short_side
        self._secret = secret
        self._shard_bytes = shard_bytes
        self._images: dict[str, _Known] = {}
        self._digests: dict[str, str] = {}  # digest -> patient
        self._quarantined: dict[str, set[str]] = {}  # item -> codes
        self._shard, self._end = 0, 0
        self._shard_handle = self._lock_handle = -1
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
            (self.path / "images").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_failure(error, self.path) from None
        self._lock(wait_seconds)
        try:
            self._journal = Journal(self.path / "journal.jsonl")
            self._quarantine = Journal(self.path / "quarantine.jsonl")
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
        if self._end and self._end + len(data) > self._shard_bytes:
            self._open_shard(self._shard + 1)
        text = encode(values)
        known = _Known(values["digest"], zlib.crc32(text))
        height, width = pixels.shape
        place = {"shard": self._shard, "offset": self._end, "height": height, "width": width}
        place |= {"crc": zlib.crc32(data), "row": known.row}
        try:
            write_at(self._shard_handle, data, self._end)
        except OSError as error:
            os.ftruncate(self._shard_handle, self._end)
            raise write_failure(error, self._shard_path(self._shard)) from None
        self._journal.append_text(text[:-1] + b"," + encode(place)[1:])
        self._end += len(data)
        self._images[values["image"]] = known
        self._digests[values["digest"]] = values["patient"]
        self._unsynced += 1
        if self._unsynced >= SYNC_EVERY:
            self.sync()

    def quarantine(self, code: Reason, item: str) -> None:
        """Note that ``item`` was refused for ``code``. Only its keyed hash is kept, and once."""
        key, word = self.key("item", item), Reason(code).value
        codes = self._quarantined.setdefault(key, set())
        if word not in codes:
            self._quarantine.append({"item": key, "code": word})
            codes.add(word)

    def release(self, item: str) -> None:
        """Drop the notes of an item that was mended and is in the store now."""
        if not self._quarantined:
            return
        key = self.key("item", item)
        if self._quarantined.pop(key, None) is None:
            return
        kept = [line for _, _, line in self._quarantine.lines() if line["item"] != key]
        self._quarantine.close()
        self._replace("quarantine.jsonl", b"".join(encode(line) + b"\n" for line in kept))
        self._quarantine = Journal(self.path / "quarantine.jsonl")

    def sync(self) -> None:
        """Force everything committed so far to the disk."""
        try:
            os.fsync(self._shard_handle)
            self._journal.sync()
            self._quarantine.sync()
        except OSError as error:
            raise write_failure(error, self.path / "journal.jsonl") from None
        self._unsynced = 0

    def finish(self) -> dict[str, Any]:
        """Write ``studies.parquet`` and ``store.json``; return the latter's content. May be called again.

        Raises:
            StoreWriteError: the disk is full or read-only; the previous table, if any, is still whole.
        """
        self.sync()
        header: dict[str, Any] = {}
        rows = []
        pixels = hashlib.sha256()
        for _, _, line in self._journal.lines():
            if "store" in line:
                header = line["store"]
            elif "image" in line:
                pixels.update(line.pop("crc").to_bytes(4, "big"))
                del line["row"]
                rows.append(line)
        findings = (*CHEXPERT, *sorted(self._findings))
        table = fold(rows, findings)
        temporary = self.path / ".studies.parquet.tmp"
        try:
            pq.write_table(table, temporary, compression="zstd")
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise write_failure(error, self.path / "studies.parquet") from None
        parquet = temporary.read_bytes()
        about = {
            "schema_version": SCHEMA_VERSION,
            "counts": {
                "images": len(rows),
                "studies": len({row["study"] for row in rows}),
                "patients": len({row["patient"] for row in rows}),
                "shards": 1 + max((row["shard"] for row in rows), default=-1),
            },
            "sources": {s: sum(row["source"] == s for row in rows) for s in sorted({r["source"] for r in rows})},
            "findings": list(findings),
            "short_side": header["short_side"],
            "preprocessing": header["preprocessing"],
            "preprocessing_hash": config_hash(header["preprocessing"]),
            "split_salt": header["split_salt"],
            "table_sha256": hashlib.sha256(parquet).hexdigest(),
            "pixels_sha256": pixels.hexdigest(),  # over the CRC-32 of every image, in order
        }
        # The table goes first: a reader that finds it beside the old store.json sees that the two do not
        # match.
        self._publish(temporary, "studies.parquet")
        self._replace("store.json", json.dumps(about, indent=1, sort_keys=True).encode() + b"\n")
        return about

    def close(self) -> None:
        """Release files and lock. What was committed stays; ``finish`` is not implied."""
        for journal in (getattr(self, "_journal", None), getattr(self, "_quarantine", None)):
            if journal is not None:
                journal.close()
        for name in ("_shard_handle", "_lock_handle"):
            if getattr(self, name) >= 0:
                os.close(getattr(self, name))
                setattr(self, name, -1)

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
        whole, recent = self._read_journal(header)
        whole = self._drop_unwritten(recent, whole)
        if self._journal.size > whole:
            self._journal.truncate(whole)
        if not self._journal.size:
            self._journal.append({"store": header})
        self._open_shard(self._shard, self._end)
        end = 0
        for _, end, line in self._quarantine.lines():  # noqa: B007
            self._quarantined.setdefault(line["item"], set()).add(line["code"])
        if self._quarantine.size > end:
            self._quarantine.truncate(end)

    def _read_journal(self, header: dict[str, Any]) -> tuple[int, deque[tuple[int, dict[str, Any]]]]:
        """(bytes of whole lines, the last SYNC_EVERY rows with their positions); fills the indexes."""
        whole, recent = 0, deque()
        for position, whole, line in self._journal.lines():  # noqa: B007
            if "store" in line:
                _same_header(line["store"], header)
            elif "image" in line:
                self._images[line["image"]] = _Known(line["digest"], line["row"])
                self._digests[line["digest"]] = line["patient"]
                self._shard = line["shard"]
                self._end = line["offset"] + line["height"] * line["width"]
                recent.append((position, line))
                if len(recent) > SYNC_EVERY:
                    recent.popleft()
            elif "findings" in line:
                self._allow(line["findings"])
        return whole, recent

    def _drop_unwritten(self, recent: deque[tuple[int, dict[str, Any]]], whole: int) -> int:
        """Check the pixels of the latest rows, which no sync covered; forget rows from the first bad one on.

        Returns the size in bytes that the journal keeps of its ``whole`` lines.
        """
        bad = next((i for i, (_, row) in enumerate(recent) if not self._pixels_whole(row)), None)
        if bad is None:
            return whole
        if bad == 0 and len(self._images) > len(recent):
            raise StoreWriteError(
                f"images/{self._shard_path(recent[0][1]['shard']).name}: shorter than the journal says, "
                "or damaged; "
                "restore the store from its backup, or import into a new folder"
            )
        for _, row in list(recent)[bad:]:
            del self._images[row["image"]], self._digests[row["digest"]]
        last = recent[bad - 1][1] if bad else {"shard": 0, "offset": 0, "height": 0, "width": 0}
        self._shard, self._end = last["shard"], last["offset"] + last["height"] * last["width"]
        return recent[bad][0]

    def _pixels_whole(self, row: dict[str, Any]) -> bool:
        length = row["height"] * row["width"]
        try:
            with open(self._shard_path(row["shard"]), "rb") as file:
                file.seek(row["offset"])
                data = file.read(length)
        except FileNotFoundError:
            return False
        return len(data) == length and zlib.crc32(data) == row["crc"]

    def _open_shard(self, number: int, size: int = 0) -> None:
        """Make ``number`` the shard that is written, cut to ``size`` bytes."""
        path = self._shard_path(number)
        try:
            if self._shard_handle >= 0:
                os.fsync(self._shard_handle)
                os.close(self._shard_handle)
            self._shard_handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            os.ftruncate(self._shard_handle, size)
        except OSError as error:
            raise write_failure(error, path) from None
        self._shard, self._end = number, size

    def _shard_path(self, number: int) -> Path:
        return self.path / "images" / f"shard-{number:05d}.u8"

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
            temporary.write_bytes(data)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise write_failure(error, self.path / name) from None
        self._publish(temporary, name)


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
