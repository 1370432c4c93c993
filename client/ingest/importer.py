"""An image folder with a CSV manifest -> study store.

    summary = import_folder(folder, load_layout("chestxray14"), store_path, site_secret(key_file))

Decoding happens in worker processes; rows are committed in the manifest's order. The same folder gives the
same store, byte for byte, however many workers there are and however often the import was killed and rerun.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from client.ingest.codes import Reason
from client.ingest.layouts import BadRow, Layout, Manifest
from client.ingest.pool import Pool
from client.ingest.raster import PREPROCESSING
from client.ingest.writer import RowError, StoreWriter, blinded_day
from models.config import config
from models.studies.pairing import PairingRules

Progress = Callable[[int, int], None]


@config
class Limits:
    """What one file may cost before it is refused.

    min_side: smallest side in pixels. max_pixels: checked in the header. max_bytes: of the file.
    seconds, memory_bytes: for one file in a worker.
    """

    min_side: int = 32
    max_pixels: int = 64_000_000
    max_bytes: int = 256 << 20
    seconds: float = 60.0
    memory_bytes: int = 4 << 30


@dataclass
class Summary:
    """What an import did.

    accepted: images added. duplicate: images that were there already. changed: of these, images whose row in
    the manifest now says something else; the store keeps what it has. filtered: rows left out.
    quarantined: refused items by reason code. seconds: wall time.
    """

    accepted: int = 0
    duplicate: int = 0
    changed: int = 0
    filtered: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class _Item:
    """One row on its way. ``note`` names it in the quarantine (hashed there); ``code``: already refused."""

    note: str
    path: str | None
    row: dict[str, Any]
    code: Reason | None = None


def import_folder(
    folder: Path,
    layout: Layout,
    store: Path,
    secret: bytes,
    workers: int | None = None,
    progress: Progress | None = None,
    *,
    short_side: int = 512,
    limits: Limits | None = None,
    wait_seconds: float = 0.0,
) -> Summary:
    """Import what ``layout`` reads in ``folder`` into ``store``; run it again to go on or to add new rows.

    Args:
        workers: decoding processes; default: one a core.
        progress: called with (rows done, rows in all).
        short_side: of the stored images in pixels; smaller images keep their size.
        limits: what one file may cost.
        wait_seconds: how long to wait for another writer of the same store.

    Raises:
        LayoutError: the folder, its CSV or one of its columns is missing.
        StoreWriteError: the store is held by another writer, not writable, or begun with other settings.
        PoolError: worker processes cannot start.
    """
    begun = time.monotonic()
    limits = limits or Limits()
    manifest = Manifest(folder, layout)
    with StoreWriter(
        store,
        findings=manifest.findings,
        short_side=short_side,
        preprocessing={**PREPROCESSING, "min_side": limits.min_side},
        secret=secret,
        pairing=PairingRules(max_gap_days=None, unknown=True),  # a published set says itself what follows what
        wait_seconds=wait_seconds,
    ) as writer:
        items = list(_items(manifest, writer, secret))
        summary = Summary(filtered=len(manifest.rows) - len(items))
        refused: Counter[str] = Counter()
        for done, (item, answer, data) in enumerate(_decoded(items, writer, workers, short_side, limits), start=1):
            code = _commit(item, answer, data, writer, summary)
            if code is not None:
                refused[code.value] += 1
                writer.quarantine(code, item.note)
            if progress:
                progress(done, len(items))
        summary.quarantined = dict(sorted(refused.items()))
        writer.finish()
    summary.seconds = time.monotonic() - begun
    return summary


def _items(manifest: Manifest, writer: StoreWriter, secret: bytes) -> Iterator[_Item]:
    """The manifest's rows with identifiers replaced by keyed hashes."""
    name = manifest.layout.name
    for number, raw in manifest.kept():
        identity = f"line {number}"
        try:
            identity, path = manifest.image_path(raw)
            row = manifest.values(raw, identity)
        except BadRow:
            yield _Item(f"{name}/{identity}", None, {}, Reason.BAD_ROW)
            continue
        patient, date = row.pop("patient_id"), row.pop("date")
        if date is not None:
            row["day"] = blinded_day(secret, f"{name}/{patient}", date)
        row["patient"] = writer.key("patient", name, patient)
        row["study"] = writer.key("study", name, patient, row.pop("study_id"))
        row["image"] = writer.key("image", name, identity)
        row = {key: value for key, value in row.items() if value is not None}
        yield _Item(f"{name}/{identity}", path, row, None if path else Reason.MISSING_FILE)


def _decoded(
    items: list[_Item], writer: StoreWriter, workers: int | None, short_side: int, limits: Limits
) -> Iterator[tuple[_Item, dict[str, Any], memoryview]]:
    """(item, answer, pixels) of every item, in order. An image in the store is only hashed."""
    tasks = [
        {
            "path": item.path,
            "hash_only": writer.digest_of(item.row["image"]) is not None,
            "short_side": short_side,
            "min_side": limits.min_side,
            "max_pixels": limits.max_pixels,
            "max_bytes": limits.max_bytes,
        }
        for item in items
        if item.code is None
    ]
    count = max(1, min(workers or os.cpu_count() or 1, len(tasks)))
    with Pool("client.ingest.raster:serve", count, limits.seconds, limits.memory_bytes) as pool:
        answers = pool.map(tasks)
        for item in items:
            if item.code is None:
                answer, data = next(answers)
                yield item, answer, data
            else:
                yield item, {"code": item.code.value}, memoryview(b"")


def _commit(
    item: _Item, answer: dict[str, Any], data: memoryview, writer: StoreWriter, summary: Summary
) -> Reason | None:
    """Add the item, count it as a duplicate, or say why it is refused."""
    if "code" in answer:
        return Reason(answer["code"])
    row = {**item.row, "digest": writer.key("file", answer["sha256"])}
    try:
        stored = writer.digest_of(row["image"])
        if stored is not None and stored != row["digest"]:
            return Reason.CONFLICTING_DUPLICATE
        if stored is not None:
            summary.duplicate += 1
            summary.changed += writer.differs(row)
            return None
        if writer.has(row["digest"]):
            if writer.patient_of(row["digest"]) != row["patient"]:
                return Reason.CONFLICTING_DUPLICATE
            summary.duplicate += 1
            return None
        if "shape" not in answer:  # asked for its hash only, because it was in the store when we began
            return Reason.UNEXPECTED
        writer.add(row, np.frombuffer(data, dtype=np.uint8).reshape(answer["shape"]))
    except RowError:
        return Reason.BAD_ROW
    summary.accepted += 1
    writer.release(item.note)
    return None
