"""A chest radiograph with a sentinel in every attribute that could identify somebody, written byte by
byte.
"""

from __future__ import annotations

import datetime
import struct
import zlib
from dataclasses import dataclass, field
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from pydicom.datadict import dictionary_VR

from client.ingest.ps315 import load_table
from client.ingest.pseudonym import Pseudonyms

LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UC", "UN", "UR", "UT"})
TEXTS = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
FIRST_DAY = datetime.date(1970, 1, 1)
BASE = {  # what a chest radiograph needs to be read at all; not sentinels
    0x00080016: ("UI", b"1.2.840.10008.5.1.4.1.1.1.1"),
    0x00080060: ("CS", b"DX"),
    0x00180015: ("CS", b"CHEST"),
    0x00280002: ("US", struct.pack("<H", 1)),
    0x00280004: ("CS", b"MONOCHROME2"),
    0x00280100: ("US", struct.pack("<H", 16)),
    0x00280101: ("US", struct.pack("<H", 12)),
    0x00280102: ("US", struct.pack("<H", 11)),
    0x00280103: ("US", struct.pack("<H", 0)),
    0x00281050: ("DS", b"2048"),
    0x00281051: ("DS", b"4096"),
}


@dataclass
class Planted:
    """A file and what was hidden in it: ``tokens`` by where it was hidden."""

    data: bytes
    tokens: dict[str, bytes] = field(default_factory=dict)


def chest(rows: int = 160, columns: int = 192) -> np.ndarray:
    """A smooth 12-bit picture with lungs; no small sharp spots, so that nothing is taken for writing."""
    y, x = np.mgrid[0:rows, 0:columns] / [[[rows]], [[columns]]]
    body = 2600 * np.exp(-(((x - 0.5) / 0.4) ** 4) - (((y - 0.6) / 0.55) ** 6))
    for side in (0.3, 0.7):
        body -= 1700 * np.exp(-(((x - side) / 0.13) ** 2) - (((y - 0.5) / 0.27) ** 2))
    noise = np.random.default_rng(0).normal(0, 12, (rows, columns))
    return np.clip(cv2.GaussianBlur(body + 400 + noise, (0, 0), 1.5), 0, 4095).astype(np.uint16)


def element(tag: int, vr: str, value: bytes, *, implicit: bool = False) -> bytes:
    """One element, little endian."""
    if len(value) % 2:
        value += b"\0" if vr in ("UI", "OB", "UN", "") else b" "
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if implicit:
        return head + struct.pack("<L", len(value)) + value
    if vr in LONG:
        return head + vr.encode() + b"\0\0" + struct.pack("<L", len(value)) + value
    return head + vr.encode() + struct.pack("<H", len(value)) + value


def sentinel(vr: str, number: int) -> tuple[bytes, bytes] | None:
    """(value, what to search for) of a VR; ``None`` for a VR too short to search in raw bytes."""
    if vr in TEXTS:
        text = f"SNT{number:05d}Q".encode()
        return (text + b"^SNT" if vr == "PN" else text), text
    day = (FIRST_DAY + datetime.timedelta(days=number)).strftime("%Y%m%d").encode()
    clock = f"1{number % 10}3417.{900000 + number}".encode()
    if vr == "DA":
        return day, day
    if vr == "TM":
        return clock, clock[2:]
    if vr == "DT":
        return day + clock + b"+0100", day + clock
    if vr == "AS":
        return b"077Y", b"077Y"
    if vr == "UI":
        uid = f"1.2.840.99999.{7000000 + number}".encode()
        return uid, uid
    if vr in ("DS", "IS"):
        digits = f"{70010000 + number}".encode()
        return digits, digits
    if vr in ("OB", "OW", "UN"):
        text = f"SENTINELBYTES{number:05d}".encode()
        return text, text
    return None


def vr_of(tag: int) -> str:
    """VR of a row by pydicom's dictionary; attributes newer than it are written as LO."""
    try:
        return dictionary_VR(tag).split(" ")[0]
    except KeyError:
        return "LO"


def nested(number: int, *, implicit: bool, depth: int = 3) -> tuple[bytes, list[tuple[str, bytes]]]:
    """A sequence's value whose item holds one sentinel of every VR, a private element, and another such
    item.
    """
    parts, tokens = [], []
    for offset, (tag, vr) in enumerate(
        [
            (0x00080005, "CS"),
            (0x00080020, "DA"),
            (0x00080030, "TM"),
            (0x0008002A, "DT"),
            (0x00080050, "SH"),
            (0x00081030, "LO"),
            (0x00081155, "UI"),
            (0x00090010, "LO"),
            (0x00091001, "LT"),
            (0x00100010, "PN"),
            (0x00102180, "LT"),
            (0x0040A160, "UT"),
        ]
    ):
        if (tag, vr) == (0x00080005, "CS"):
            continue
        value, token = sentinel(vr, 20000 + 100 * (number % 150) + 20 * depth + offset)
        parts.append(element(tag, vr, value, implicit=implicit))
        tokens.append((f"{tag:08x} at depth {depth} of row {number}", token))
    if depth > 1:
        value, inner = nested(number, implicit=implicit, depth=depth - 1)
        parts.append(element(0x0040A730, "SQ", value, implicit=implicit))
        tokens += inner
    item = b"".join(parts)
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(item)) + item, tokens


def plant(syntax: str = "1.2.840.10008.1.2.1", *, pixels: np.ndarray | None = None) -> Planted:
    """A whole file, sentinels in every row of the table and beyond it."""
    implicit = syntax == "1.2.840.10008.1.2"
    tokens: dict[str, bytes] = {}
    held: dict[int, tuple[str, bytes]] = dict(BASE)
    meta: dict[int, tuple[str, bytes]] = {0x00020010: ("UI", syntax.encode())}

    def hide(where: str, tag: int, vr: str, number: int) -> None:
        if vr == "SQ":
            value, inner = nested(number, implicit=implicit)
            tokens.update(inner)
        else:
            found = sentinel(vr, number)
            value, token = found or (struct.pack("<H", 7000 + number), b"")
            tokens[where] = token
        (meta if tag >> 16 == 2 else held)[tag] = (vr, value)

    for number, row in enumerate(load_table().rows):
        tag = 0x50003000 if row.tag == "50xxxxxx" else int(row.tag.replace("x", "0"), 16)
        hide(f"row {row.tag}", tag, vr_of(tag), number)
    number = 1000
    for tag, vr in (
        (0x00020016, "AE"),
        (0x00020100, "UI"),
        (0x00020102, "OB"),
        (0x00090010, "LO"),
        (0x00091001, "LT"),
        (0x00110010, "LO"),
        (0x00111010, "UN"),
        (0x00111011, "SQ"),
        (0x00080008, "CS"),
        (0x00185101, "CS"),
        (0x00200020, "CS"),
        (0x00200060, "CS"),
        (0x00200062, "CS"),
        (0x00200011, "IS"),
        (0x00200013, "IS"),
        (0x00283003, "LO"),
        (0x00281055, "LO"),
        (0x00080070, "LO"),
        (0x00180060, "DS"),
        (0x50023000, "OW"),
        (0x60023000, "OW"),
        (0x60000022, "LO"),
        (0x601E3000, "OW"),
        (0x7FDF0010, "LO"),
        (0x7FDF1001, "OB"),
    ):
        number += 1
        hide(f"extra {tag:08x}", tag, vr, number)
    words = (chest() if pixels is None else pixels).copy()
    secret = b"SENTINELINTHEUNUSEDBITS"
    for place, letter in enumerate(secret):  # four unused bits a word, as old overlays were kept
        words.flat[2 * place] |= (letter >> 4) << 12
        words.flat[2 * place + 1] |= (letter & 15) << 12
    tokens["unused bits"] = secret
    held[0x00280010] = ("US", struct.pack("<H", words.shape[0]))
    held[0x00280011] = ("US", struct.pack("<H", words.shape[1]))
    held[0x7FE00010] = ("OW", words.astype("<u2").tobytes())
    body = b"".join(element(tag, vr, value, implicit=implicit) for tag, (vr, value) in sorted(held.items()))
    if syntax == "1.2.840.10008.1.2.1.99":
        squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
        body = squeeze.compress(body) + squeeze.flush()
    tokens["preamble"] = b"SENTINELINPREAMBLE"
    head = b"".join(element(tag, vr, value) for tag, (vr, value) in sorted(meta.items()))
    head = element(0x00020000, "UL", struct.pack("<L", len(head))) + head
    return Planted(tokens["preamble"].ljust(128, b"!") + b"DICM" + head + body, tokens)


def found_in(data: bytes, tokens: dict[str, bytes]) -> list[str]:
    """Where the sentinels that are in ``data`` had been hidden: raw, as UTF-16, and in the high bits of
    words.
    """
    high = np.frombuffer(data[: len(data) // 2 * 2], "<u2") >> 12
    views = [data]
    for start in range(4):
        part = high[start : start + (len(high) - start) // 2 * 2].reshape(-1, 2)
        views.append((part[:, 0] << 4 | part[:, 1]).astype(np.uint8).tobytes())
    return [
        where
        for where, token in tokens.items()
        if token
        and (
            any(token in view for view in views)
            or any(token.decode().encode(wide) in data for wide in ("utf-16-le", "utf-16-be"))
        )
    ]


@pytest.fixture(scope="session")
def sentinels() -> SimpleNamespace:
    """``plant``, ``found_in``, ``chest`` and ``element`` of this file."""
    return SimpleNamespace(plant=plant, found_in=found_in, chest=chest, element=element)


@pytest.fixture
def pseudonyms() -> Pseudonyms:
    """Pseudonyms of a fixed secret."""
    return Pseudonyms(b"a fixed secret for the tests ...")
