"""Reading a study store: the table in memory, the pixels memory-mapped (DESIGN section 4)."""

from __future__ import annotations

import copy
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.studies.resize import fit_into
from models.studies.schema import SCHEMA_VERSION, Label, label_column
from models.studies.splits import DEFAULT_FRACTIONS, split

Fit = Literal["crop", "pad", "squash"]
Progress = Callable[[int, int], None]

_CHUNK = 64


class StoreError(RuntimeError):
    """A study store that cannot be read. The text says what is wrong and what to do."""


class Patients(NamedTuple):
    """Who the images are of: ``keys[codes[i]]`` names image i's patient; ``keys`` are sorted hashes."""

    codes: np.ndarray  # int64 [N]
    keys: np.ndarray  # str [P]


class Store:
    """A study store, read-only. Make one with ``Store.open``; row i is image i everywhere."""

    def __init__(self, path: Path, about: dict[str, Any], table: pa.Table, digest: str, cache: Path) -> None:
        self.path = path
        self.about = about
        self.table = table
        self.digest = digest
        self._cache = cache
        self._heights = _ints(table, "height")
        self._widths = _ints(table, "width")
        self._shard_of = _ints(table, "shard")
        self._offsets = _ints(table, "offset")
        self._shards: dict[int, np.ndarray] = {}
        self._resized: dict[tuple[int, str], np.ndarray] = {}
        self._hidden = np.zeros(0, dtype=np.int64)
        self._turned = np.zeros(0, dtype=np.int64)

    @classmethod
    def open(cls, path: Path | str, cache: Path | str | None = None) -> Store:
        """Open the store at ``path``; resized images are kept in ``cache`` (default: ``path/derived``).

        Raises:
            StoreError: no store there, another schema version, no image, or files that do not match.
        """
        path = Path(path)
        if not path.is_dir():
            raise StoreError(f"{path}: no such folder; give the folder that an import wrote")
        try:
            raw = (path / "store.json").read_bytes()
            about = json.loads(raw)
        except FileNotFoundError:
            hint = (
                "an import began here but did not finish; run it again"
                if (path / "journal.jsonl").exists()
                else ("this is not a study store; give the folder that an import wrote")
            )
            raise StoreError(f"{path}: no store.json; {hint}") from None
        except ValueError:
            raise StoreError(f"{path}/store.json: not valid JSON; run the import again to write it anew") from None
        version = about.get("schema_version") if isinstance(about, dict) else None
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"{path}: schema version {version!r}, this program reads {SCHEMA_VERSION}; import the studies anew"
            )
        table = _read_table(path, about)
        if not table.num_rows:
            raise StoreError(
                f"{path}: the store holds no image; look in its quarantine.jsonl for the reasons, then import again"
            )
        store = cls(path, about, table, hashlib.sha256(raw).hexdigest(), Path(cache or path / "derived"))
        store._check_shards()
        return store

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def findings(self) -> tuple[str, ...]:
        """Findings that have a label column: the 14 CheXpert classes, then the site's free labels."""
        return tuple(self.about["findings"])

    @cached_property
    def patients(self) -> Patients:
        """Patients as integer codes and their keys."""
        keys, codes = np.unique(self.strings("patient").astype(str), return_inverse=True)
        return Patients(codes.astype(np.int64), keys)

    def strings(self, column: str) -> np.ndarray:
        """Text column as an object array [N]; None where empty."""
        return np.asarray(self.table[column].to_pylist(), dtype=object)

    def integers(self, column: str, missing: int) -> np.ndarray:
        """Integer column as int64 [N], with ``missing`` where it is empty."""
        return self.table[column].fill_null(missing).to_numpy().astype(np.int64)

    def labels(self, findings: Sequence[str]) -> np.ndarray:
        """int8 [N, F] of ``Label`` codes; a finding without a column is UNMENTIONED throughout."""
        columns = [label_column(f) for f in findings]
        labels = np.full((len(self), len(columns)), int(Label.UNMENTIONED), dtype=np.int8)
        for i, name in enumerate(columns):
            if name in self.table.column_names:
                labels[:, i] = self.table[name].to_numpy()
        turned = labels[self._turned]
        answered = (turned == Label.PRESENT) | (turned == Label.ABSENT)
        labels[self._turned] = np.where(answered, int(Label.PRESENT) + int(Label.ABSENT) - turned, turned)
        labels[self._hidden] = int(Label.UNMENTIONED)
        return labels

    def without_labels(self, rows: np.ndarray) -> Store:
        """The same store with every label of ``rows`` UNMENTIONED: what a hospital has that never labelled them."""
        other = copy.copy(self)
        other._hidden = np.union1d(self._hidden, np.asarray(rows, dtype=np.int64))
        return other

    def with_wrong_labels(self, rows: np.ndarray) -> Store:
        """The same store with PRESENT and ABSENT exchanged in all labels of ``rows``: for measuring what errors cost."""
        other = copy.copy(self)
        other._turned = np.setxor1d(self._turned, np.asarray(rows, dtype=np.int64))
        return other

    def pixels(self, row: int) -> np.ndarray:
        """uint8 [H, W]: a view into the memory-mapped shard, not a copy."""
        height, width, start = int(self._heights[row]), int(self._widths[row]), int(self._offsets[row])
        return self._shard(int(self._shard_of[row]))[start : start + height * width].reshape(height, width)

    def where(self, **allowed: str | Collection[str]) -> np.ndarray:
        """Rows (int64, ascending) with allowed texts only: ``where(view=("PA", "AP"), sex="F")``.

        Raises:
            StoreError: for a column that the store does not have.
        """
        keep = np.ones(len(self), dtype=bool)
        for name, values in allowed.items():
            if name not in self.table.column_names:
                raise StoreError(f"no column {name!r}; the store has: {', '.join(self.table.column_names)}")
            wanted = {values} if isinstance(values, str) else set(values)
            keep &= np.array([value in wanted for value in self.table[name].to_pylist()], dtype=bool)
        return np.flatnonzero(keep)

    def split(self, fractions: dict[str, float] | None = None) -> np.ndarray:
        """Name of the split of every image (str [N]), by patient: the same wherever this store is."""
        names = split(self.patients.keys, fractions or DEFAULT_FRACTIONS, self.about["split_salt"])
        return names[self.patients.codes]

    def resized(self, size: int, fit: Fit = "crop", progress: Progress | None = None) -> np.ndarray:
        """uint8 [N, size, size], memory-mapped: every image at one size, made once and kept beside the store.

        Args:
            size: side in pixels, 8 to 2048.
            fit: ``crop`` the middle square, ``pad`` to a square with black, or ``squash`` to a square.
            progress: called with (images done, images in all) while the file is made.

        Raises:
            StoreError: a size or fit that is not allowed, or no room or right to write the file.
        """
        if fit not in get_args(Fit):
            raise StoreError(f"fit {fit!r} is not known; allowed: {', '.join(get_args(Fit))}")
        if not 8 <= size <= 2048:
            raise StoreError(f"size {size} is outside 8 to 2048 pixels")
        if (size, fit) not in self._resized:
            self._resized[size, fit] = self._open_resized(size, fit, progress)
        return self._resized[size, fit]

    def _open_resized(self, size: int, fit: Fit, progress: Progress | None) -> np.ndarray:
        target = self._cache / f"{size}-{fit}-{self.digest[:16]}.u8"
        shape = (len(self), size, size)
        if not _has_size(target, shape):
            try:
                self._cache.mkdir(parents=True, exist_ok=True)
                with _locked(self._cache / f".{target.name}.lock"):
                    if not _has_size(target, shape):  # another process may have made it while we waited
                        self._build_resized(target, size, fit, progress)
            except OSError as error:
                raise StoreError(
                    f"{target}: resized images cannot be written ({error.strerror}); "
                    f"{_gib(shape)} are needed. "
                    "Free space, or give Store.open a writable folder as cache"
                ) from None
        return np.memmap(target, dtype=np.uint8, mode="r", shape=shape)

    def _build_resized(self, target: Path, size: int, fit: Fit, progress: Progress | None) -> None:
        """Fill a temporary file and rename it, so that a half-made one is never read."""
        temporary = target.with_name(f".{target.name}.tmp")
        count = len(self)
        with open(temporary, "w+b") as file:
            # Reserved first: a memory map that meets a full disk later would kill the process.
            os.posix_fallocate(file.fileno(), 0, count * size * size)
            out = np.memmap(file, dtype=np.uint8, mode="r+", shape=(count, size, size))

            def fill(start: int) -> None:
                for row in range(start, min(start + _CHUNK, count)):
                    fit_into(self.pixels(row), out[row], fit)

            for number in np.unique(self._shard_of):
                self._shard(int(number))  # opened here, so that the threads only read
            with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
                for done, _ in enumerate(pool.map(fill, range(0, count, _CHUNK)), start=1):
                    if progress:
                        progress(min(done * _CHUNK, count), count)
            out.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        if self._cache == self.path / "derived":  # a folder given by the caller may serve several stores
            for old in self._cache.glob(f"{size}-{fit}-*.u8"):
                if old != target:  # of this store before it grew; whoever has it open keeps it
                    old.unlink(missing_ok=True)

    def _shard(self, number: int) -> np.ndarray:
        if number not in self._shards:
            self._shards[number] = np.asarray(np.memmap(self._shard_path(number), dtype=np.uint8, mode="r"))
        return self._shards[number]

    def _shard_path(self, number: int) -> Path:
        return self.path / "images" / f"shard-{number:05d}.u8"

    def _check_shards(self) -> None:
        ends = self._offsets + self._heights * self._widths
        for number in np.unique(self._shard_of):
            path, needed = self._shard_path(int(number)), int(ends[self._shard_of == number].max())
            found = path.stat().st_size if path.exists() else 0
            if found < needed:
                raise StoreError(
                    f"images/{path.name} of {self.path}: {found} bytes, {needed} expected; "
                    "the file is cut short. "
                    "Copy the store again or restore it from its backup"
                )


def _read_table(path: Path, about: dict[str, Any]) -> pa.Table:
    try:
        raw = (path / "studies.parquet").read_bytes()
    except FileNotFoundError:
        raise StoreError(f"{path}: no studies.parquet; run the import again to write it anew") from None
    if hashlib.sha256(raw).hexdigest() != about.get("table_sha256"):
        raise StoreError(
            f"{path}: studies.parquet is not the one that store.json describes (an import stopped between "
            "the two, "
            "or a copy is incomplete); run the import again, or copy the store again"
        )
    return pq.read_table(pa.BufferReader(raw))


def _ints(table: pa.Table, column: str) -> np.ndarray:
    return table[column].to_numpy().astype(np.int64)


def _has_size(path: Path, shape: tuple[int, ...]) -> bool:
    return path.exists() and path.stat().st_size == int(np.prod(shape))


def _gib(shape: tuple[int, ...]) -> str:
    return f"{np.prod(shape) / 2**30:.1f} GiB"


@contextmanager
def _locked(path: Path):
    """Hold an exclusive lock on ``path``: two processes that need the same file make it once."""
    with open(path, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
