"""What was refused, and why: ``quarantine.jsonl`` of a store. Items are named by keyed hashes only."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

from client.ingest.codes import Reason
from client.ingest.journal import Journal, encode, private, write_failure

About = Literal["file", "report"]


class Quarantine:
    """The notes of one store; each (item, code) stands once.

    ``about`` parts the notes on image files from those on reports: the latter say how reports and studies fit
    together, so they are made anew whenever reports are matched.

    Raises:
        StoreWriteError: from every method that writes.
    """

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path)
        self._codes: dict[str, set[str]] = {}
        self._of_reports: set[tuple[str, str]] = set()
        end = 0
        for _, end, line in self._journal.lines():  # noqa: B007
            self._enter(line["item"], line["code"], line.get("about", "file"))
        if self._journal.size > end:
            self._journal.truncate(end)

    def note(self, code: Reason, item: str, about: About = "file") -> None:
        """Note that the item with this keyed hash was refused for ``code``."""
        word = Reason(code).value
        if about == "file" and word not in self._codes.get(item, ()):
            self._journal.append({"item": item, "code": word})
        elif about == "report" and (item, word) not in self._of_reports:
            self._journal.append({"item": item, "code": word, "about": about})
        self._enter(item, word, about)

    def codes_of(self, item: str) -> frozenset[str]:
        """Codes noted for an image file."""
        return frozenset(self._codes.get(item, ()))

    def release(self, items: Collection[str]) -> None:
        """Drop the notes of image files that were mended."""
        gone = {item for item in items if self._codes.pop(item, None) is not None}
        if gone:
            self._rewrite(line for line in self._lines() if "about" in line or line["item"] not in gone)

    def release_reports(self) -> None:
        """Drop all notes on reports."""
        if self._of_reports:
            self._of_reports.clear()
            self._rewrite(line for line in self._lines() if "about" not in line)

    def counts(self) -> Counter[str]:
        """Items by code."""
        files = Counter(code for codes in self._codes.values() for code in codes)
        return files + Counter(code for _, code in self._of_reports)

    def sync(self) -> None:
        self._journal.sync()

    def close(self) -> None:
        self._journal.close()

    def _enter(self, item: str, code: str, about: str) -> None:
        if about == "file":
            self._codes.setdefault(item, set()).add(code)
        else:
            self._of_reports.add((item, code))

    def _lines(self) -> Iterator[dict[str, str]]:
        yield from (line for _, _, line in self._journal.lines())

    def _rewrite(self, kept: Iterator[dict[str, str]]) -> None:
        path = self._journal.path
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            with open(temporary, "wb", opener=private) as file:
                file.writelines(encode(line) + b"\n" for line in kept)
                file.flush()
                os.fsync(file.fileno())
            self._journal.close()
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise write_failure(error, path) from None
        self._journal = Journal(path)
