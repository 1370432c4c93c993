"""Stored pixel values of one grey frame, exactly as the file holds them.

Everything that a number in the header could blow up is compared with its cap, and with the bytes that are
really there, before anything is allocated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset

from client.ingest.codecs import NATIVE, PREFERENCE, decoder_for
from client.ingest.codes import Reason
from client.ingest.codestream import Frame, check_rle, jpeg2000_frame, jpeg_frame
from client.ingest.limits import Limits
from client.ingest.part10 import Source
from client.ingest.refusal import Refusal

_GREY = ("MONOCHROME1", "MONOCHROME2")
_LEAST_BITS, _MOST_BITS = 6, 16  # DX allows 6 to 16 bits stored (PS3.3 C.8.11.3)


@dataclass(frozen=True)
class Layout:
    """The image pixel module of one grey frame, checked.

    ``shift`` is how far left the stored bits lie (0 in any modern file); ``signed`` is two's complement.
    """

    rows: int
    columns: int
    allocated: int
    stored: int
    shift: int
    signed: bool
    photometric: str


def read_layout(source: Source, limits: Limits) -> tuple[Layout, list[str]]:
    """Check the image pixel module; returns it and notes of what was tolerated.

    Raises:
        Refusal: NO_PIXEL_DATA, NO_PHOTOMETRIC, COLOUR, MULTI_FRAME, TOO_LARGE, UNSUPPORTED_BITS, BAD_HEADER.
    """
    dataset = source.dataset
    notes: list[str] = []
    if source.pixels is None or source.pixels.end == source.pixels.value:
        raise Refusal(Reason.NO_PIXEL_DATA)
    photometric = _word(dataset, "PhotometricInterpretation")
    if not photometric:
        raise Refusal(Reason.NO_PHOTOMETRIC)
    samples = _number(dataset, "SamplesPerPixel", 1)
    if photometric not in _GREY or samples != 1:
        raise Refusal(Reason.COLOUR)
    rows, columns = _number(dataset, "Rows"), _number(dataset, "Columns")
    frames = _number(dataset, "NumberOfFrames", 1)
    if rows < 1 or columns < 1:
        raise Refusal(Reason.BAD_HEADER, "size")
    if frames < 0 or rows * columns * max(frames, 1) > limits.pixels:
        raise Refusal(Reason.TOO_LARGE, "pixels")
    if frames > 1:
        raise Refusal(Reason.MULTI_FRAME)
    allocated = _number(dataset, "BitsAllocated")
    if allocated not in (8, 16):
        raise Refusal(Reason.UNSUPPORTED_BITS, "allocated")
    stored = _number(dataset, "BitsStored", 0)
    if not stored:
        stored = allocated
        notes.append("bits_stored_absent")
    if stored > allocated:
        raise Refusal(Reason.BAD_HEADER, "bits")
    if not _LEAST_BITS <= stored <= _MOST_BITS:
        raise Refusal(Reason.UNSUPPORTED_BITS, "stored")
    shift = _number(dataset, "HighBit", stored - 1) + 1 - stored
    if shift and (not 0 < shift <= allocated - stored or source.syntax not in (*NATIVE, uid.RLELossless)):
        # A codestream has no unused low bits: its values are right aligned whatever the header says.
        notes.append("high_bit_ignored")
        shift = 0
    representation = _number(dataset, "PixelRepresentation", 0)
    if representation not in (0, 1):
        raise Refusal(Reason.BAD_HEADER, "representation")
    return Layout(rows, columns, allocated, stored, shift, bool(representation), photometric), notes


def read_stored(source: Source, layout: Layout) -> tuple[np.ndarray, list[str]]:
    """Stored values (rows, columns) as uint8 or uint16 words, unused bits included, and notes.

    Raises:
        Refusal: TRUNCATED, SIZE_MISMATCH, MULTI_FRAME, UNSUPPORTED_SYNTAX, UNSUPPORTED_BITS, BAD_CODESTREAM.
    """
    if source.syntax in NATIVE:
        return _native(source, layout)
    if source.syntax not in PREFERENCE:
        raise Refusal(Reason.UNSUPPORTED_SYNTAX)
    return _encapsulated(source, layout), []


def _native(source: Source, layout: Layout) -> tuple[np.ndarray, list[str]]:
    element = source.pixels
    assert element is not None  # read_layout refused it
    if element.undefined:
        raise Refusal(Reason.SIZE_MISMATCH, "encapsulated")
    expected = layout.rows * layout.columns * layout.allocated // 8
    there = min(element.end, len(source.data)) - element.value
    if there < expected:
        raise Refusal(Reason.TRUNCATED if element.end > len(source.data) else Reason.SIZE_MISMATCH, "pixels")
    if there >= 2 * expected and there > expected + 1:  # one byte pads a file of one 8-bit pixel
        raise Refusal(Reason.SIZE_MISMATCH, "pixels")
    notes = ["trailing_pixel_bytes"] if there > expected + 1 else []
    flat = np.frombuffer(
        source.data, np.uint8, count=expected + expected % 2 * (there > expected), offset=element.value
    )
    if layout.allocated == 16:
        words = flat[:expected].view("<u2" if source.little else ">u2")
        flat = words if source.little else words.astype(np.uint16)
    elif not source.little and element.vr == b"OW":
        # Eight-bit pixels in big-endian 16-bit words: every two bytes stand in exchanged order (PS3.5 D.1).
        even = len(flat) // 2 * 2
        flat = np.concatenate([flat[:even].reshape(-1, 2)[:, ::-1].ravel(), flat[even:]])
    return flat[: layout.rows * layout.columns].reshape(layout.rows, layout.columns), notes


def _encapsulated(source: Source, layout: Layout) -> np.ndarray:
    if len(source.fragments) < 2:
        raise Refusal(Reason.BAD_CODESTREAM if source.fragments else Reason.SIZE_MISMATCH, "fragments")
    table, *fragments = source.fragments
    if table[1] - table[0] > 4:
        raise Refusal(Reason.MULTI_FRAME, "offset table")
    code = b"".join(source.data[start:end] for start, end in fragments)
    _check_codestream(source.syntax, code, layout)
    one_item = b"\xfe\xff\x00\xe0" + bytes(4) + b"\xfe\xff\x00\xe0" + len(code).to_bytes(4, "little") + code
    decoder = decoder_for(source.syntax)
    for plugin in PREFERENCE[source.syntax]:
        if plugin not in decoder.available_plugins:
            continue
        try:
            values, _ = decoder.as_array(
                one_item,
                index=0,
                raw=True,
                decoding_plugin=plugin,
                correct_unused_bits=False,  # done once for every syntax, in the grey table
                rows=layout.rows,
                columns=layout.columns,
                number_of_frames=1,
                samples_per_pixel=1,
                planar_configuration=0,
                bits_allocated=layout.allocated,
                bits_stored=layout.stored,
                pixel_representation=int(layout.signed),
                photometric_interpretation=layout.photometric,
                pixel_keyword="PixelData",
            )
        except MemoryError:
            raise
        except Exception:  # plug-ins raise anything; the next one may cope
            continue
        return values.view(np.uint8 if layout.allocated == 8 else np.uint16)
    raise Refusal(Reason.BAD_CODESTREAM, "decoder")


def _check_codestream(syntax: str, code: bytes, layout: Layout) -> None:
    if syntax == uid.RLELossless:
        check_rle(code, layout.rows, layout.columns, layout.allocated // 8)
        return
    frame = jpeg2000_frame(code) if PREFERENCE[syntax][0] == "openjpeg" else jpeg_frame(code)
    if frame.samples != 1:
        raise Refusal(Reason.COLOUR, "codestream")
    if frame != Frame(layout.rows, layout.columns, 1, frame.precision):
        raise Refusal(Reason.SIZE_MISMATCH, "codestream")
    if frame.precision > layout.allocated:
        raise Refusal(Reason.SIZE_MISMATCH, "precision")
    if syntax == uid.JPEGExtended12Bit and frame.precision != 8:
        raise Refusal(Reason.UNSUPPORTED_SYNTAX, "12-bit JPEG")


def _number(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    try:
        value = dataset.get(keyword)
        if value is None or value == "":
            if default is not None:
                return default
        else:
            return int(value)
    except MemoryError:
        raise
    except Exception:  # a list where one number belongs, letters, a broken VR
        pass
    raise Refusal(Reason.BAD_HEADER, keyword)


def _word(dataset: Dataset, keyword: str) -> str:
    try:
        value = dataset.get(keyword)
        return "" if value is None else str(value).strip().upper()
    except MemoryError:
        raise
    except Exception:
        raise Refusal(Reason.BAD_HEADER, keyword) from None
