"""The files of a PACS export, in an order that is the same on every machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(folder: Path) -> Iterator[Path]:
    """Every regular file below ``folder``, whatever its name: PACS exports seldom use a suffix.

    Depth first, names sorted by their bytes. Links are not followed: one could lead out of the export, or round in a
    circle. A folder that cannot be read is passed over.
    """
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as entries:
                found = sorted(entries, key=lambda entry: os.fsencode(entry.name))
        except OSError:
            continue
        yield from (here / entry.name for entry in found if entry.is_file(follow_symlinks=False))
        waiting += [here / entry.name for entry in reversed(found) if entry.is_dir(follow_symlinks=False)]
