"""Files below a folder, in the same order every time, without following links."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(root: Path) -> Iterator[Path]:
    """Every file below ``root``, folder by folder, names sorted; also what is no plain file, and folders that may
    not be read: they are for the reader to refuse, so that nothing is passed over in silence.

    Left out: links, and names that begin with a dot (what a copy in progress, or a desktop, leaves behind).
    """
    waiting = [(root, True)]
    while waiting:
        path, folder = waiting.pop()
        if not folder:
            yield path
            continue
        try:
            with os.scandir(path) as found:
                entries = sorted(found, key=lambda entry: entry.name, reverse=True)
        except OSError:
            yield path
            continue
        for entry in entries:
            if not (entry.name.startswith(".") or entry.is_symlink()):
                waiting.append((Path(entry.path), entry.is_dir(follow_symlinks=False)))


def item_name(path: Path) -> str:
    """What names a file in the quarantine, where only a keyed hash of it arrives. Any name that a disk can hold."""
    return "file " + os.fsencode(path.absolute()).decode("utf-8", "backslashreplace")
