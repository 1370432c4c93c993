"""The files that hold a store's pixels, 8 bits each, image after image. Written by one process at a time."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from client.ingest.journal import write_at, write_failure


class Shards:
    """The shard files below ``folder``; ``number`` and ``end`` say where the next image goes.

    Raises:
        StoreWriteError: from every method, when the disk is full or read-only.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder = folder
        self.number, self.end = 0, 0
        self._most = most_bytes
        self._handle = -1

    def path(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.u8"

    def open(self, number: int, size: int = 0) -> None:
        """Make ``number`` the shard that is written, cut to ``size`` bytes."""
        path = self.path(number)
        try:
            if self._handle >= 0:
                os.fsync(self._handle)
                os.close(self._handle)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            os.ftruncate(self._handle, size)
        except OSError as error:
            raise write_failure(error, path) from None
        self.number, self.end = number, size

    def write(self, data: memoryview) -> dict[str, int]:
        """Write one image behind the others, not yet counted in ``end``: where it lies and its check sum."""
        if self.end and self.end + len(data) > self._most:
            self.open(self.number + 1)
        try:
            write_at(self._handle, data, self.end)
        except OSError as error:
            os.ftruncate(self._handle, self.end)
            raise write_failure(error, self.path(self.number)) from None
        return {"shard": self.number, "offset": self.end, "crc": zlib.crc32(data)}

    def overwrite(self, place: Mapping[str, int]) -> None:
        """Zeros over the pixels at ``place``, forced to the disk."""
        path = self.path(place["shard"])
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                write_at(handle, bytes(place["height"] * place["width"]), place["offset"])
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise write_failure(error, path) from None

    def whole(self, row: Mapping[str, Any]) -> bool:
        """Whether the pixels of a committed row are what they were."""
        length = row["height"] * row["width"]
        try:
            with open(self.path(row["shard"]), "rb") as file:
                file.seek(row["offset"])
                data = file.read(length)
        except FileNotFoundError:
            return False
        return len(data) == length and zlib.crc32(data) == row["crc"]

    def sync(self) -> None:
        """Force what was written to the disk."""
        os.fsync(self._handle)

    def close(self) -> None:
        """Release the file."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
