"""Report bytes -> text, in a stated order, refusing what is in none of the encodings tried.

``auto`` tries, in this order: a byte order mark (UTF-8, UTF-16, UTF-32); strict UTF-8; UTF-16 without a
mark, where every second byte is zero; Windows-1252, if the result looks like text. Latin-1 is not tried:
what it has beyond Windows-1252 are control characters that no report holds. A site whose files are in
something else names it.
"""

from __future__ import annotations

import codecs
import re
from typing import Literal

from client.ingest.codes import Reason
from client.ingest.refusal import Refusal

MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""UTF-32 first: its little-endian mark begins with that of UTF-16."""

Wide = Literal["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]

_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")
_MOJIBAKE = re.compile(
    "[\u00c2\u00c3\u00e2][\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160]"
)
_FOREIGN_RUN = re.compile("[\u00c0-\u00ff]{4,}")
_MOST_FOREIGN = 0.3


def decode(raw: bytes, encoding: str = "auto") -> str:
    """Text of ``raw``.

    Raises:
        Refusal: REPORT_ENCODING.
    """
    mark, name = marked(raw)
    if encoding == "auto" or name:
        raw = raw[len(mark) :]
        candidates = [name] if name else ["utf-8", *_wide(raw), "cp1252"]
    else:
        candidates = [encoding]
    for candidate in candidates:
        try:
            text = raw.decode(candidate)
        except (UnicodeDecodeError, LookupError):
            continue
        if _CONTROL.search(text) is None and (candidate != "cp1252" or encoding != "auto" or _plausible(text)):
            return text
    raise Refusal(Reason.REPORT_ENCODING)


def marked(raw: bytes) -> tuple[bytes, str]:
    """(byte order mark, encoding) at the beginning of ``raw``; empty where there is none."""
    return next(((mark, name) for mark, name in MARKS if raw.startswith(mark)), (b"", ""))


def wide_encoding(start: bytes, encoding: str = "auto") -> str:
    """The encoding of a file that begins with ``start`` if its characters have two or four bytes, else
    ``""``.
    """
    _, name = marked(start)
    if encoding not in ("auto", "") and not name:
        name = codecs.lookup(encoding).name
    if name in ("utf-16", "utf-32"):
        name += "-le"
    if name:
        return name if name.startswith(("utf-16", "utf-32")) else ""
    return next(iter(_wide(start)), "")


def _wide(raw: bytes) -> list[str]:
    """UTF-16 without a mark: nearly all Latin letters have a zero for their other byte."""
    sample = raw[:4096]
    if len(sample) < 4:
        return []
    even, odd = sample[0::2], sample[1::2]
    if odd.count(0) > 0.7 * len(odd) and even.count(0) < 0.1 * len(even):
        return ["utf-16-le"]
    if even.count(0) > 0.7 * len(even) and odd.count(0) < 0.1 * len(odd):
        return ["utf-16-be"]
    return []


def _plausible(text: str) -> bool:
    """Whether text read as Windows-1252 is likely to be that.

    Anything decodes as Windows-1252: other Latin alphabets and Asian encodings give runs of accented
    letters, cut UTF-8 gives its usual pairs.
    """
    letters = [c for c in text if c.isalpha()]
    foreign = sum(c > "\x7f" for c in letters)
    return (
        _MOJIBAKE.search(text) is None
        and _FOREIGN_RUN.search(text) is None
        and foreign <= _MOST_FOREIGN * max(len(letters), 10)
    )
