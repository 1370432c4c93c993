"""An append-only file of JSON lines that a kill or a power cut cannot spoil: a torn end is dropped."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class StoreWriteError(RuntimeError):
    """The store cannot be written. What was committed before is whole; the text says what to do."""


def write_failure(error: OSError, path: Path) -> StoreWriteError:
    """``error`` of the operating system in words, for a file at ``path`` of the store."""
    place = f"{path.parent.name}/{path.name}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreWriteError(
            f"{place}: no room left ({error.strerror}); every item committed so far is safe. "
            "Free space (or raise the quota) and run the same command again: it goes on from here"
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StoreWriteError(
            f"{place}: not writable ({error.strerror}); let this user write to the store's folder, or choose another"
        )
    return StoreWriteError(f"{place}: writing failed ({error.strerror}); nothing committed so far is lost")


def private(path: str | Path, flags: int) -> int:
    """For ``open(..., opener=private)``: a new file that others than the owner and the group cannot read."""
    return os.open(path, flags, 0o640)


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)


class Journal:
    """One JSON object a line. ``append`` writes a line or nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            self.size = os.fstat(self._handle).st_size
        except OSError as error:
            raise write_failure(error, path) from None

    def lines(self) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """(first byte, byte after the last, object) of every whole line, in order.

        Raises:
            StoreWriteError: for a broken line that whole lines follow: that is damage, not a torn end.
        """
        broken: int | None = None
        position = 0
        with open(self.path, "rb") as file:
            for number, raw in enumerate(file, start=1):
                value = _parse(raw)
                if value is None:
                    broken = broken or number
                elif broken is not None:
                    raise StoreWriteError(
                        f"{self.path.name}: line {broken} is damaged though later lines are whole; "
                        "restore the store from its backup, or import into a new folder"
                    )
                else:
                    yield position, position + len(raw), value
                position += len(raw)

    def truncate(self, size: int) -> None:
        """Keep the first ``size`` bytes."""
        try:
            os.ftruncate(self._handle, size)
        except OSError as error:
            raise write_failure(error, self.path) from None
        self.size = size

    def append(self, value: dict[str, Any]) -> None:
        """Write one line. On failure the file is as before.

        Raises:
            StoreWriteError: when the disk is full or read-only.
        """
        self.append_text(encode(value))

    def append_text(self, text: bytes) -> None:
        """Like ``append``, for an object that is JSON already."""
        line = text + b"\n"
        try:
            write_at(self._handle, line, self.size)
        except OSError as error:
            os.ftruncate(self._handle, self.size)
            raise write_failure(error, self.path) from None
        self.size += len(line)

    def sync(self) -> None:
        """Force what was appended to the disk."""
        os.fsync(self._handle)

    def close(self) -> None:
        """Release the file."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def encode(value: dict[str, Any]) -> bytes:
    """Canonical JSON: equal values, equal bytes."""
    return _ENCODER.encode(value).encode()


def write_at(handle: int, data: bytes | memoryview, position: int) -> None:
    """Write all of ``data`` at byte ``position``."""
    view = memoryview(data).cast("B")
    done = 0
    while done < len(view):
        done += os.pwrite(handle, view[done:], position + done)


def _parse(raw: bytes) -> dict[str, Any] | None:
    if not raw.endswith(b"\n"):
        return None
    try:
        value = json.loads(raw)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
