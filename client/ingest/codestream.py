"""What a compressed frame says about itself, read from its first bytes without decoding it.

A codestream carries its own size. A decoder believes that one and allocates it, whatever the DICOM header
says, so the two are compared before any decoder starts. Sources: ISO 10918-1 B.2 (JPEG), ISO 14495-1 C.2
(JPEG-LS), ISO 15444-1 A.5.1 (JPEG 2000 and HTJ2K), PS3.5 Annex G (RLE).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from client.ingest.codes import Reason
from client.ingest.refusal import Refusal

_SOF = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_J2K_START = b"\xff\x4f\xff\x51"
_MAX_TILES = 4096
_BOX_SEARCH = 4096


@dataclass(frozen=True, slots=True)
class Frame:
    """Size in pixels, samples per pixel, and bits per sample."""

    rows: int
    columns: int
    samples: int
    precision: int


def jpeg_frame(code: bytes) -> Frame:
    """Frame header of a JPEG or JPEG-LS stream.

    Raises:
        Refusal: BAD_CODESTREAM if there is none before the first scan.
    """
    if code[:2] != b"\xff\xd8":
        raise Refusal(Reason.BAD_CODESTREAM, "start")
    position = 2
    while position + 4 <= len(code):
        if code[position] != 0xFF:
            break
        marker = code[position + 1]
        if marker == 0xFF:  # fill bytes may stand before any marker
            position += 1
            continue
        if marker in _STANDALONE:
            position += 2
            continue
        (length,) = struct.unpack_from(">H", code, position + 2)
        if marker in _SOF and position + 10 <= len(code):
            precision, rows, columns, samples = struct.unpack_from(">BHHB", code, position + 4)
            return Frame(rows, columns, samples, precision)
        if marker == 0xDA or length < 2:
            break
        position += 2 + length
    raise Refusal(Reason.BAD_CODESTREAM, "frame header")


def jpeg2000_frame(code: bytes) -> Frame:
    """Size segment of a JPEG 2000 or HTJ2K codestream, bare or inside a JP2 wrapper.

    Raises:
        Refusal: BAD_CODESTREAM if there is none, SIZE_MISMATCH if it asks for an absurd number of tiles.
    """
    start = code.find(_J2K_START, 0, _BOX_SEARCH)
    if start < 0:
        raise Refusal(Reason.BAD_CODESTREAM, "start")
    try:
        _, _, x1, y1, x0, y0, tile_x, tile_y, tile_x0, tile_y0, samples = struct.unpack_from(">HH8LH", code, start + 4)
        depth = code[start + 42]
    except (struct.error, IndexError):
        raise Refusal(Reason.BAD_CODESTREAM, "size segment") from None
    if not (x1 > x0 and y1 > y0 and tile_x and tile_y and tile_x0 <= x0 and tile_y0 <= y0 and samples):
        raise Refusal(Reason.BAD_CODESTREAM, "size segment")
    if -(-(x1 - tile_x0) // tile_x) * -(-(y1 - tile_y0) // tile_y) > _MAX_TILES:
        raise Refusal(Reason.SIZE_MISMATCH, "tiles")
    return Frame(y1 - y0, x1 - x0, samples, (depth & 0x7F) + 1)


def check_rle(code: bytes, rows: int, columns: int, bytes_per_sample: int) -> None:
    """RLE states no size, but PackBits cannot grow more than 64-fold: too little data is refused unseen.

    Raises:
        Refusal: BAD_CODESTREAM for a wrong header, SIZE_MISMATCH for data that cannot fill the image.
    """
    if len(code) < 64:
        raise Refusal(Reason.BAD_CODESTREAM, "segments")
    segments, *offsets = struct.unpack_from("<16L", code)
    used = offsets[:segments] if segments <= 15 else []
    if segments != bytes_per_sample:
        raise Refusal(Reason.SIZE_MISMATCH, "segments")
    if used != sorted(used) or used[0] != 64 or used[-1] >= len(code):
        raise Refusal(Reason.BAD_CODESTREAM, "segments")
    if rows * columns * bytes_per_sample > 64 * (len(code) - 64):
        raise Refusal(Reason.SIZE_MISMATCH, "rle")
