"""A DICOM file as bytes -> a small pydicom data set of allow-listed elements, and where its pixel data lie.

The order is the safety: caps and the preamble first, then bounded inflation, then the walk that finds the
elements, and only then pydicom, which sees nothing but the slices that the allow-list names. Nested junk,
private groups, overlays and free text of a file are never parsed at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from client.ingest.codes import Reason
from client.ingest.elements import PIXEL_DATA, PIXEL_TAGS, Element, Walker
from client.ingest.header import KEYWORDS
from client.ingest.inflate import inflate
from client.ingest.limits import Limits
from client.ingest.refusal import Refusal

IMAGE_KEYWORDS = (
    "SpecificCharacterSet",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "PixelAspectRatio",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleIntercept",
    "RescaleSlope",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "PresentationLUTShape",
    "LossyImageCompression",
    "ViewCodeSequence",
    "AnatomicRegionSequence",
)
"""What decoding and gating read beside the header values of :mod:`client.ingest.header`."""

_WANTED = frozenset(tag_for_keyword(keyword) for keyword in (*IMAGE_KEYWORDS, *KEYWORDS))
_SEQUENCES = frozenset(tag for tag in _WANTED if dictionary_VR(tag) == "SQ")
_VALUE_CAP = 1 << 16  # the longest allow-listed value that makes sense is far shorter
_SEQUENCE_CAP = 1 << 20  # a look-up table of 65,536 entries is 128 KiB
_TRANSFER_SYNTAX = 0x00020010


@dataclass(frozen=True)
class Source:
    """One image file, parsed as far as decoding needs."""

    dataset: Dataset  # allow-listed elements only
    syntax: str  # transfer syntax UID
    data: bytes  # the (inflated) bytes that the positions below point into
    pixels: Element | None
    fragments: tuple[tuple[int, int], ...]  # of encapsulated pixel data, the offset table first
    little: bool
    overlays: bool  # overlay planes may hide in unused bits
    notes: tuple[str, ...]  # what was odd and tolerated


def open_source(data: bytes, limits: Limits) -> Source:
    """Parse one DICOM file given as bytes.

    Raises:
        Refusal: TOO_LARGE, NOT_DICOM, TRUNCATED, HEADER_LIMIT, INFLATE_LIMIT, BAD_HEADER, UNSUPPORTED_SYNTAX.
    """
    if len(data) > limits.file_bytes:
        raise Refusal(Reason.TOO_LARGE, "file")
    notes: list[str] = []
    start = _after_preamble(data, notes)
    syntax, start = _file_meta(data, start, limits)
    if syntax == DeflatedExplicitVRLittleEndian:
        data, start = inflate(memoryview(data)[start:], limits), 0
    implicit, little = _encoding(data, start, syntax, notes)
    walker = Walker(data, implicit=implicit, little=little, limits=limits)
    wanted, pixels, overlays = _collect(walker, start, notes)
    if not syntax:
        # Without file meta nothing says how pixels are compressed; uncompressed is the only safe reading.
        notes.append("no_transfer_syntax")
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    fragments: tuple[tuple[int, int], ...] = ()
    if pixels is not None and pixels.undefined:
        fragments = tuple(walker.fragments(pixels))
    slices = b"".join(data[e.start : e.end] for e in wanted)
    try:
        dataset = read_dataset(BytesIO(slices), is_implicit_VR=implicit, is_little_endian=little)
    except RecursionError:
        raise Refusal(Reason.HEADER_LIMIT, "nesting") from None
    except MemoryError:
        raise
    except Exception as error:  # pydicom raises whatever a broken element happens to provoke
        raise Refusal(Reason.BAD_HEADER, type(error).__name__) from None
    return Source(dataset, str(syntax), data, pixels, fragments, little, overlays, tuple(notes))


def _after_preamble(data: bytes, notes: list[str]) -> int:
    if data[128:132] == b"DICM":
        return 132
    # Old exports start with the data set itself: an even, low group in little endian.
    if len(data) >= 16 and data[1] == 0 and data[0] in (0x02, 0x08) and data[3] <= 0x30:
        notes.append("no_preamble")
        return 0
    raise Refusal(Reason.NOT_DICOM, "empty" if not data else "")


def _file_meta(data: bytes, start: int, limits: Limits) -> tuple[str, int]:
    """(transfer syntax UID or "", position of the data set). Group 2 is explicit little endian, always
    (PS3.10 7.1)."""
    syntax, position = "", start
    group2 = b"\x02\x00"
    if data[position : position + 2] != group2:
        return syntax, position
    for element in Walker(data, implicit=False, little=True, limits=limits).top_level(start):
        if element.tag >> 16 != 2:
            return syntax, element.start
        if element.tag == _TRANSFER_SYNTAX:
            value = data[element.value : min(element.end, element.value + 64)]
            syntax = value.decode("ascii", "replace").strip(" \0")
        position = element.end
        if data[position : position + 2] != group2:
            break  # what follows may be in another encoding, or deflated
    return syntax, position


def _encoding(data: bytes, start: int, syntax: str, notes: list[str]) -> tuple[bool, bool]:
    """(implicit, little endian) as the first element really is; some writers state one and write the
    other."""
    little = syntax != ExplicitVRBigEndian
    implicit = not _looks_explicit(data, start)
    if syntax and implicit != (syntax == ImplicitVRLittleEndian) and start < len(data):
        notes.append("encoding_contradicts_meta")
    return implicit, little


def _looks_explicit(data: bytes, start: int) -> bool:
    vr = data[start + 4 : start + 6]
    return len(vr) == 2 and vr.isalpha() and vr.isupper()


def _collect(walker: Walker, start: int, notes: list[str]) -> tuple[list[Element], Element | None, bool]:
    """Allow-listed elements, the pixel data element, and whether overlay planes are declared."""
    wanted: dict[int, Element] = {}
    overlays = False
    for element in walker.top_level(start):
        tag = element.tag
        if tag in PIXEL_TAGS:
            if tag != PIXEL_DATA:
                raise Refusal(Reason.UNSUPPORTED_BITS, "float")
            return list(wanted.values()), element, overlays
        if tag in _WANTED:
            if tag in wanted:
                # Two readers would disagree about which one counts, and one of them may name the patient.
                raise Refusal(Reason.BAD_HEADER, "repeated element")
            if element.end - element.value > (_SEQUENCE_CAP if tag in _SEQUENCES else _VALUE_CAP):
                raise Refusal(Reason.HEADER_LIMIT, "value")
            wanted[tag] = element
        overlays |= tag >> 24 == 0x60
    return list(wanted.values()), None, overlays
