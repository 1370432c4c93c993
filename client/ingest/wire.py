"""What the reading child and its parent say to each other: lengths, JSON, raw pixels. Nothing is ever
unpickled.

The parent treats the child as lost to the enemy: every length is capped, every value has its type and range
checked, and whatever does not fit means that the child is replaced.
"""

from __future__ import annotations

import json
import re
import struct
from typing import Any

import numpy as np

from client.ingest.codes import Reason
from client.ingest.gate import VIEWS
from client.ingest.header import Header
from client.ingest.reading import Heading, Reading, Refused

LENGTHS = struct.Struct("<4sIQ")
MAGIC = b"FCX1"
IMAGE, HEADING = b"R", b"H"
"""What the parent asks of a file: all of it, or its header alone."""
MOST_JSON = 1 << 18
MOST_PIXELS = 1 << 27

_DIGEST = re.compile(r"[0-9a-f]{64}|")
_WORD = re.compile(r"[A-Za-z0-9_.:+ -]{0,64}")


class WireError(ValueError):
    """The child said something that it never says."""


def to_wire(result: Reading | Refused | Heading) -> tuple[bytes, bytes]:
    """(lengths and JSON, pixels) of one result."""
    if isinstance(result, Refused):
        values: dict[str, Any] = {"reason": result.reason.value, "note": result.note, "digest": result.digest}
        values["header"] = result.header.plain() if result.header is not None else None
        pixels = b""
    elif isinstance(result, Heading):
        values, pixels = {"header": result.header.plain(), "digest": ""}, b""
    else:
        values = {
            "header": result.header.plain(),
            "view": result.view,
            "view_from": result.view_from,
            "chest_from": result.chest_from,
            "shape": list(result.pixels.shape),
            "applied": result.applied,
            "flags": list(result.flags),
            "scores": result.scores,
            "digest": result.digest,
        }
        pixels = result.pixels.tobytes()
    text = json.dumps(values, separators=(",", ":")).encode()
    return LENGTHS.pack(MAGIC, len(text), len(pixels)) + text, pixels


def lengths(head: bytes) -> tuple[int, int]:
    """(bytes of JSON, bytes of pixels) that follow.

    Raises:
        WireError
    """
    magic, text, pixels = LENGTHS.unpack(head)
    if magic != MAGIC or text > MOST_JSON or pixels > MOST_PIXELS:
        raise WireError("lengths")
    return text, pixels


def from_wire(text: bytes, pixels: np.ndarray) -> Reading | Refused | Heading:
    """Rebuild a result from untrusted bytes; ``pixels`` is flat uint8.

    Raises:
        WireError: for anything that :func:`to_wire` cannot have written.
    """
    try:
        values = json.loads(text)
        digest = _match(values["digest"], _DIGEST)
        header = None if values["header"] is None else Header.from_plain(values["header"])
        if "reason" in values:
            return Refused(Reason(values["reason"]), _match(values["note"], _WORD), header, digest)
        if "shape" not in values:
            if header is None:
                raise WireError("header")
            return Heading(header)
        height, width = values["shape"]
        if type(height) is not int or type(width) is not int or height < 1 or height * width != pixels.size:
            raise WireError("shape")
        if header is None or values["view"] not in VIEWS:
            raise WireError("view")
        return Reading(
            header=header,
            view=values["view"],
            view_from=_match(values["view_from"], _WORD),
            chest_from=_match(values["chest_from"], _WORD),
            pixels=pixels.reshape(height, width),
            applied={_match(k, _WORD): _plain(v) for k, v in _dict(values["applied"]).items()},
            flags=tuple(_match(flag, _WORD) for flag in _list(values["flags"])),
            scores={_match(k, _WORD): _score(v) for k, v in _dict(values["scores"]).items()},
            digest=digest,
        )
    except WireError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError):
        raise WireError("values") from None


def _match(value: object, pattern: re.Pattern[str]) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise WireError("text")
    return value


def _dict(value: object) -> dict[Any, Any]:
    if not isinstance(value, dict) or len(value) > 64:
        raise WireError("keys")
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list) or len(value) > 64:
        raise WireError("list")
    return value


def _score(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e6:
        raise WireError("score")
    return float(value)


def _plain(value: object) -> Any:
    """A word, a number, a truth value, or a list of them."""
    if isinstance(value, list):
        return [_plain(item) for item in _list(value) if not isinstance(item, list)]
    if isinstance(value, str):
        return _match(value, _WORD)
    return value if isinstance(value, bool) else _number(value)


def _number(value: object) -> int | float:
    number = _score(value)
    return value if isinstance(value, int) else number
