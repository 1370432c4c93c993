"""Reason codes of the quarantine: stable words that scripts and people can count on.

A code is never renamed. Its text says what is wrong and what to do, and holds nothing of the item itself.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why an item was not ingested."""

    MISSING_FILE = "missing_file"
    UNREADABLE_IMAGE = "unreadable_image"
    NOT_GREY = "not_grey"
    TOO_SMALL = "too_small"
    TOO_LARGE = "too_large"
    BLANK_IMAGE = "blank_image"
    BAD_ROW = "bad_row"
    CONFLICTING_DUPLICATE = "conflicting_duplicate"
    TIME_LIMIT = "time_limit"
    MEMORY_LIMIT = "memory_limit"
    CRASHED = "crashed"
    UNEXPECTED = "unexpected"


ADVICE: dict[Reason, str] = {
    Reason.MISSING_FILE: "the manifest names a file that is not in the folder; check the path column",
    Reason.UNREADABLE_IMAGE: "the file is not a readable image; export it again",
    Reason.NOT_GREY: "a colour image whose channels differ; only grey radiographs are read",
    Reason.TOO_SMALL: "the image is smaller than the smallest allowed side",
    Reason.TOO_LARGE: "the image has more pixels or bytes than the cap; raise the cap only for files you trust",
    Reason.BLANK_IMAGE: "the image is constant; nothing was exposed or the window removed it",
    Reason.BAD_ROW: "a row's value is outside what its column allows; correct the row",
    Reason.CONFLICTING_DUPLICATE: "the same identifier came before with other content; keep one of the two",
    Reason.TIME_LIMIT: "reading took longer than the limit; the file is broken or hostile",
    Reason.MEMORY_LIMIT: "reading needed more memory than the limit; the file is broken or hostile",
    Reason.CRASHED: "the reader process died on this file; the file is broken or hostile",
    Reason.UNEXPECTED: "an error nobody foresaw; please report the code of the exception class, never the file",
}
