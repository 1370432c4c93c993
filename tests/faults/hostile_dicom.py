"""Broken and hostile DICOM files, made from code: each a few lines, each with the reason code it must get.

``corpus()`` yields (name, bytes, expected code). Bombs are small here and large only where they would be
unpacked.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset

from client.ingest.codes import Reason
from tests.client.ingest.dicom.maker import chest, dataset, encode, header, write

_SEQUENCE_END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
_ITEM_END = struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
_UNDEFINED = 0xFFFFFFFF

Maker = Callable[[], bytes]
_KINDS: dict[str, tuple[Reason, Maker]] = {}


def corpus() -> Iterator[tuple[str, bytes, Reason]]:
    """(name, file, expected code) of every kind."""
    for name, (reason, make) in _KINDS.items():
        yield name, make(), reason


def names() -> list[str]:
    return list(_KINDS)


def one(name: str) -> tuple[bytes, Reason]:
    """(file, expected code) of one kind."""
    reason, make = _KINDS[name]
    return make(), reason


def _kind(reason: Reason) -> Callable[[Maker], Maker]:
    def register(make: Maker) -> Maker:
        _KINDS[make.__name__] = (reason, make)
        return make

    return register


def _header_kind(name: str, reason: Reason, bits: int = 12, **changes: object) -> None:
    """A kind that differs from a good file in a few header values only."""
    _KINDS[name] = (reason, lambda: write_raw(dataset(chest(), bits), **changes))


def good() -> bytes:
    return write(dataset(chest()))


def write_raw(ds: Dataset, **changes: object) -> bytes:
    """As ``write``, with header values that pydicom itself would refuse to write."""
    raw = {}
    for keyword, value in changes.items():
        if isinstance(value, bytes):
            raw[keyword] = value
        elif value is None:
            del ds[keyword]
        else:
            setattr(ds, keyword, value)
    data = write(ds)
    for keyword, value in raw.items():
        data = put(data, keyword, value)
    return data


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """One explicit little-endian element; ``length`` may lie."""
    length = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"OF"):
        return head + b"\0\0" + struct.pack("<L", length) + value
    return head + struct.pack("<H", length) + value


def split(data: bytes) -> tuple[bytes, bytes, bytes]:
    """(everything before the pixel data element, its 12-byte head, its value) of a native explicit file."""
    at = data.rindex(b"\xe0\x7f\x10\x00")
    return data[:at], data[at : at + 12], data[at + 12 :]


def put(data: bytes, keyword: str, value: bytes) -> bytes:
    """Replace, or insert in order, a short-form element by raw bytes: ``vr`` (2 letters), then the value."""
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(keyword)
    assert tag is not None
    new = element(tag, value[:2], value[2:])
    position = 132
    while position < len(data):
        group, number = struct.unpack_from("<HH", data, position)
        vr = data[position + 4 : position + 6]
        if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"OF"):
            end = position + 12 + struct.unpack_from("<L", data, position + 8)[0]
        else:
            end = position + 8 + struct.unpack_from("<H", data, position + 6)[0]
        here = group << 16 | number
        if here >= tag and group != 2:
            return data[:position] + new + data[end if here == tag else position :]
        position = end
    raise AssertionError("no place for it")


def pixels(value: bytes, *, undefined: bool = False, length: int | None = None, vr: bytes = b"OW") -> bytes:
    return element(0x7FE00010, vr, value, _UNDEFINED if undefined else length)


def item(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(value) if length is None else length) + value


def compressed(syntax: str, body: bytes, bits: int = 12, **changes: object) -> bytes:
    """A file of ``syntax`` whose pixel data element is ``body``, header as for an uncompressed chest."""
    data = write_raw(dataset(chest(), bits), **changes)
    before, _, _ = split(data)
    return _with_syntax(before, syntax) + body


def _with_syntax(data: bytes, syntax: str) -> bytes:
    """The same file meta with another transfer syntax; group length corrected."""
    at = data.index(b"\x02\x00\x10\x00UI")
    (old,) = struct.unpack_from("<H", data, at + 6)
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    data = data[:at] + element(0x00020010, b"UI", value) + data[at + 8 + old :]
    (group,) = struct.unpack_from("<L", data, 140)
    return data[:140] + struct.pack("<L", group + len(value) - old) + data[144:]


def fragments(*parts: bytes, table: bytes = b"", end: bool = True) -> bytes:
    body = item(table) + b"".join(item(p) for p in parts) + (_SEQUENCE_END if end else b"")
    return pixels(body, undefined=True, vr=b"OB")


def deflated(payload: bytes) -> bytes:
    """File meta of the deflated syntax, then ``payload``."""
    data = write(dataset(chest()))
    at = 144 + struct.unpack_from("<L", data, 140)[0]
    return _with_syntax(data[:at], uid.DeflatedExplicitVRLittleEndian) + payload


def raw_deflate(data: bytes, finish: bool = True) -> bytes:
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    return engine.compress(data) + engine.flush(zlib.Z_FINISH if finish else zlib.Z_FULL_FLUSH)


def insert(data: bytes, extra: bytes) -> bytes:
    """Put elements between the header and the pixel data."""
    before, head, value = split(data)
    return before + extra + head + value


def nested(levels: int, *, defined: bool = False, vr: bytes = b"SQ") -> bytes:
    """A private sequence that holds a sequence that holds ..."""
    tag = 0x00290010
    if not defined:
        opened = element(tag, vr, b"", _UNDEFINED) + item(b"", _UNDEFINED)
        inner = struct.pack("<HHL", 0x0029, 0x0010, _UNDEFINED) if vr == b"UN" else element(tag, vr, b"", _UNDEFINED)
        opened += (inner + item(b"", _UNDEFINED)) * (levels - 1)
        return opened + (_ITEM_END + _SEQUENCE_END) * levels
    body = b""
    for _ in range(levels):
        body = element(tag, vr, item(body))
    return body


@_kind(Reason.NOT_DICOM)
def empty() -> bytes:
    return b""


@_kind(Reason.NOT_DICOM)
def all_zero() -> bytes:
    return bytes(4096)


@_kind(Reason.NOT_DICOM)
def random_bytes() -> bytes:
    return np.random.default_rng(1).bytes(65536)


@_kind(Reason.NOT_DICOM)
def plain_text() -> bytes:
    return b"patient;finding\n" * 500


@_kind(Reason.NOT_DICOM)
def gzipped_dicom() -> bytes:
    return gzip.compress(good())


@_kind(Reason.NOT_DICOM)
def executable() -> bytes:
    return b"\x7fELF" + np.random.default_rng(2).bytes(8192)


@_kind(Reason.NO_PIXEL_DATA)
def preamble_only() -> bytes:
    return bytes(128) + b"DICM"


@_kind(Reason.NO_PIXEL_DATA)
def structured_report() -> bytes:
    return write(header(Modality="SR", SOPClassUID=uid.BasicTextSRStorage))


@_kind(Reason.TRUNCATED)
def cut_in_meta() -> bytes:
    return good()[:200]


@_kind(Reason.TRUNCATED)
def cut_in_header() -> bytes:
    data = good()
    return data[: data.index(b"Doe^Jane") + 3]


@_kind(Reason.TRUNCATED)
def cut_in_pixels() -> bytes:
    return good()[:-20000]


@_kind(Reason.TRUNCATED)
def cut_in_fragment() -> bytes:
    return write(dataset(chest()), uid.JPEG2000Lossless)[:-5000]


@_kind(Reason.TRUNCATED)
def element_longer_than_file() -> bytes:
    return insert(good(), element(0x00291010, b"OB", b"x", 0x7FFFFFFF))


@_kind(Reason.TRUNCATED)
def pixel_length_4gb() -> bytes:
    before, _, value = split(good())
    return before + pixels(value[:1000], length=0xFFFFFFFE)


@_kind(Reason.TRUNCATED)
def sequence_without_end() -> bytes:
    data = split(good())[0]
    return data + element(0x00400275, b"SQ", b"", _UNDEFINED) + item(b"", _UNDEFINED)


@_kind(Reason.TRUNCATED)
def unknown_vr_at_start() -> bytes:
    data = good()
    at = 144 + struct.unpack_from("<L", data, 140)[0]
    return data[: at + 4] + b"??" + data[at + 6 :]


@_kind(Reason.INFLATE_LIMIT)
def deflate_bomb_2_gib() -> bytes:
    block = raw_deflate(bytes(1 << 20), finish=False)
    return deflated(block * 2048)


@_kind(Reason.INFLATE_LIMIT)
def deflate_bomb_inside_element() -> bytes:
    return deflated(raw_deflate(split(good())[0][144:] + bytes(100 << 20)))


@_kind(Reason.TRUNCATED)
def deflate_without_end() -> bytes:
    return deflated(raw_deflate(bytes(1000), finish=False))


@_kind(Reason.BAD_CODESTREAM)
def deflate_garbage() -> bytes:
    return deflated(b"\xff" * 5000)


@_kind(Reason.HEADER_LIMIT)
def nested_1000() -> bytes:
    return insert(good(), nested(1000))


@_kind(Reason.HEADER_LIMIT)
def nested_100000() -> bytes:
    return insert(good(), nested(100_000))


@_kind(Reason.HEADER_LIMIT)
def nested_with_lengths() -> bytes:
    return insert(good(), nested(1500, defined=True))


@_kind(Reason.HEADER_LIMIT)
def nested_in_unknown_vr() -> bytes:
    return insert(good(), nested(1000, vr=b"UN"))


@_kind(Reason.HEADER_LIMIT)
def nested_in_lut_sequence() -> bytes:
    deep = nested(1000)
    return insert(good(), element(0x00283010, b"SQ", item(deep)))


@_kind(Reason.HEADER_LIMIT)
def nested_and_deflated() -> bytes:
    data = insert(good(), nested(5000))
    at = 144 + struct.unpack_from("<L", data, 140)[0]
    return deflated(raw_deflate(data[at:]))


@_kind(Reason.HEADER_LIMIT)
def two_million_elements() -> bytes:
    return insert(good(), element(0x00291010, b"US", b"\0\0") * 2_000_000)


@_kind(Reason.HEADER_LIMIT)
def million_empty_items() -> bytes:
    return insert(good(), element(0x00400275, b"SQ", item(b"") * 1_000_000 + _SEQUENCE_END, _UNDEFINED))


@_kind(Reason.HEADER_LIMIT)
def million_fragments() -> bytes:
    return compressed(uid.JPEG2000Lossless, fragments(*[b""] * 1_000_000))


@_kind(Reason.HEADER_LIMIT)
def name_of_a_megabyte() -> bytes:
    data = good()
    at = data.index(b"\x10\x00\x10\x00PN")
    (length,) = struct.unpack_from("<H", data, at + 6)
    return data[:at] + element(0x00100010, b"UT", b"A" * (1 << 20)) + data[at + 8 + length :]


_header_kind("rows_columns_65535", Reason.TOO_LARGE, Rows=65535, Columns=65535)
_header_kind("hundred_thousand_frames", Reason.TOO_LARGE, NumberOfFrames=100_000)
_header_kind("negative_frames", Reason.TOO_LARGE, NumberOfFrames=-4)
_header_kind("two_frames", Reason.MULTI_FRAME, NumberOfFrames=2)
_header_kind("frames_not_a_number", Reason.BAD_HEADER, NumberOfFrames=b"IS1A")
_header_kind("frames_list", Reason.BAD_HEADER, NumberOfFrames=b"IS1\\1 ")
_header_kind("rows_zero", Reason.BAD_HEADER, Rows=0)
_header_kind("rows_missing", Reason.BAD_HEADER, Rows=None)
_header_kind("rows_text", Reason.BAD_HEADER, Rows=b"LOmany")
_header_kind("rows_larger_than_data", Reason.SIZE_MISMATCH, Rows=4000)
_header_kind("rows_far_smaller_than_data", Reason.SIZE_MISMATCH, Rows=140)
_header_kind("photometric_missing", Reason.NO_PHOTOMETRIC, PhotometricInterpretation=None)
_header_kind("colour", Reason.COLOUR, PhotometricInterpretation="RGB", SamplesPerPixel=3)
_header_kind("rgb_with_one_sample", Reason.COLOUR, PhotometricInterpretation="RGB")
_header_kind("grey_with_three_samples", Reason.COLOUR, SamplesPerPixel=3)
_header_kind("palette", Reason.COLOUR, PhotometricInterpretation="PALETTE COLOR")
_header_kind("stored_above_allocated", Reason.BAD_HEADER, BitsStored=24)
_header_kind("one_bit", Reason.UNSUPPORTED_BITS, BitsAllocated=1, BitsStored=1)
_header_kind("packed_12_bit", Reason.UNSUPPORTED_BITS, BitsAllocated=12)
_header_kind("thirty_two_bit", Reason.UNSUPPORTED_BITS, BitsAllocated=32)
_header_kind("allocated_missing", Reason.BAD_HEADER, BitsAllocated=None)
_header_kind("two_stored_bits", Reason.UNSUPPORTED_BITS, BitsStored=2, HighBit=1)
_header_kind("representation_7", Reason.BAD_HEADER, PixelRepresentation=7)
_header_kind("slope_overflows", Reason.BAD_HEADER, RescaleSlope="1e308", RescaleIntercept="0")
_header_kind("all_padding", Reason.BLANK_IMAGE, PixelPaddingValue=0, PixelPaddingRangeLimit=4095)


@_kind(Reason.UNSUPPORTED_BITS)
def float_pixels() -> bytes:
    before, _, value = split(good())
    return before + element(0x7FE00008, b"OF", value)


@_kind(Reason.BAD_HEADER)
def patient_twice() -> bytes:
    return insert(good(), element(0x00100020, b"LO", b"P2"))


@_kind(Reason.BAD_HEADER)
def sequence_of_no_items() -> bytes:
    junk = element(0x00400275, b"SQ", b"", _UNDEFINED) + element(0x00291010, b"US", b"\0\0")
    return insert(good(), junk + _SEQUENCE_END)


@_kind(Reason.BAD_HEADER)
def modality_table_lies() -> bytes:
    entry = element(0x00283002, b"US", struct.pack("<HHH", 0, 0, 16)) + element(0x00283006, b"OW", b"\1\0")
    return insert(good(), element(0x00283000, b"SQ", item(entry)))


@_kind(Reason.BLANK_IMAGE)
def constant_image() -> bytes:
    return write(dataset(np.full((300, 300), 1234)))


@_kind(Reason.TOO_SMALL)
def one_pixel() -> bytes:
    return write(dataset(np.ones((1, 1))))


@_kind(Reason.IMPLAUSIBLE_SHAPE)
def long_strip() -> bytes:
    return write(dataset(chest(160, 3000)))


def _j2k() -> bytes:
    return encode(chest(), 12, uid.JPEG2000Lossless)


@_kind(Reason.SIZE_MISMATCH)
def j2k_says_60000() -> bytes:
    code = bytearray(_j2k())
    struct.pack_into(">LL", code, 8, 60000, 60000)
    struct.pack_into(">LL", code, 24, 60000, 60000)
    return compressed(uid.JPEG2000Lossless, fragments(bytes(code)))


@_kind(Reason.SIZE_MISMATCH)
def j2k_million_tiles() -> bytes:
    code = bytearray(_j2k())
    struct.pack_into(">LL", code, 24, 1, 1)
    return compressed(uid.JPEG2000Lossless, fragments(bytes(code)))


@_kind(Reason.BAD_CODESTREAM)
def j2k_zero_tiles() -> bytes:
    code = bytearray(_j2k())
    struct.pack_into(">LL", code, 24, 0, 0)
    return compressed(uid.JPEG2000Lossless, fragments(bytes(code)))


@_kind(Reason.COLOUR)
def j2k_with_1000_components() -> bytes:
    code = bytearray(_j2k())
    struct.pack_into(">H", code, 40, 1000)
    return compressed(uid.JPEG2000Lossless, fragments(bytes(code)))


@_kind(Reason.SIZE_MISMATCH)
def j2k_38_bits() -> bytes:
    code = bytearray(_j2k())
    code[42] = 37
    return compressed(uid.JPEG2000Lossless, fragments(bytes(code)))


@_kind(Reason.BAD_CODESTREAM)
def j2k_cut_in_stream() -> bytes:
    code = _j2k()
    return compressed(uid.JPEG2000Lossless, fragments(code[: len(code) // 2]))


@_kind(Reason.BAD_CODESTREAM)
def j2k_49_megapixels_of_nothing() -> bytes:
    code = bytearray(_j2k()[:2000])
    struct.pack_into(">LL", code, 8, 7000, 7000)
    struct.pack_into(">LL", code, 24, 7000, 7000)
    return compressed(uid.JPEG2000Lossless, fragments(bytes(code)), Rows=7000, Columns=7000)


@_kind(Reason.BAD_CODESTREAM)
def htj2k_that_is_none() -> bytes:
    return compressed("1.2.840.10008.1.2.4.201", fragments(b"\xff\x4f\xff\x51" + bytes(60)))


@_kind(Reason.BAD_CODESTREAM)
def jpegls_garbage() -> bytes:
    code = bytearray(encode(chest(), 12, uid.JPEGLSLossless))
    code[200:] = np.random.default_rng(3).bytes(len(code) - 200)
    return compressed(uid.JPEGLSLossless, fragments(bytes(code)))


@_kind(Reason.SIZE_MISMATCH)
def jpegls_of_another_size() -> bytes:
    return compressed(uid.JPEGLSLossless, fragments(encode(chest(310, 280), 12, uid.JPEGLSLossless)))


@_kind(Reason.BAD_CODESTREAM)
def jpeg_that_is_none() -> bytes:
    return compressed(uid.JPEGBaseline8Bit, fragments(bytes(5000)), bits=8)


@_kind(Reason.BAD_CODESTREAM)
def jpeg_without_tables() -> bytes:
    code = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHBBBB", 11, 8, 300, 280, 1, 1, 0x11, 0) + b"\xff\xd9"
    return compressed(uid.JPEGBaseline8Bit, fragments(code), bits=8)


@_kind(Reason.UNSUPPORTED_SYNTAX)
def jpeg_12_bit() -> bytes:
    code = b"\xff\xd8\xff\xc1" + struct.pack(">HBHHBBBB", 11, 12, 300, 280, 1, 1, 0x11, 0) + b"\xff\xd9"
    return compressed(uid.JPEGExtended12Bit, fragments(code))


@_kind(Reason.SIZE_MISMATCH)
def rle_bomb() -> bytes:
    code = struct.pack("<16L", 2, 64, 356, *[0] * 13) + b"\x81\xff" * 292
    return compressed(uid.RLELossless, fragments(code), Rows=7000, Columns=7000)


@_kind(Reason.TOO_LARGE)
def rle_65535_squared() -> bytes:
    code = struct.pack("<16L", 2, 64, 356, *[0] * 13) + b"\x81\xff" * 292
    return compressed(uid.RLELossless, fragments(code), Rows=65535, Columns=65535)


@_kind(Reason.BAD_CODESTREAM)
def rle_offsets_outside() -> bytes:
    code = bytearray(encode(chest(), 12, uid.RLELossless))
    struct.pack_into("<L", code, 8, 0xFFFFFF00)
    return compressed(uid.RLELossless, fragments(bytes(code)))


@_kind(Reason.SIZE_MISMATCH)
def rle_fifteen_segments() -> bytes:
    code = bytearray(encode(chest(), 12, uid.RLELossless))
    struct.pack_into("<L", code, 0, 15)
    return compressed(uid.RLELossless, fragments(bytes(code)))


@_kind(Reason.BAD_CODESTREAM)
def no_fragment() -> bytes:
    return compressed(uid.JPEG2000Lossless, fragments())


@_kind(Reason.MULTI_FRAME)
def many_frames_in_offset_table() -> bytes:
    code = _j2k()
    return compressed(uid.JPEG2000Lossless, fragments(code, code, table=struct.pack("<LL", 0, len(code) + 8)))


@_kind(Reason.TRUNCATED)
def fragment_longer_than_file() -> bytes:
    body = item(b"") + item(_j2k(), 0x7FFFFFF0)
    return compressed(uid.JPEG2000Lossless, pixels(body, undefined=True, vr=b"OB"))


@_kind(Reason.BAD_CODESTREAM)
def fragment_of_undefined_length() -> bytes:
    body = item(b"") + item(_j2k(), _UNDEFINED)
    return compressed(uid.JPEG2000Lossless, pixels(body, undefined=True, vr=b"OB"))


@_kind(Reason.SIZE_MISMATCH)
def compressed_syntax_plain_pixels() -> bytes:
    return compressed(uid.JPEG2000Lossless, pixels(chest().tobytes()))


@_kind(Reason.SIZE_MISMATCH)
def plain_syntax_compressed_pixels() -> bytes:
    return compressed(uid.ExplicitVRLittleEndian, fragments(_j2k()))


@_kind(Reason.UNSUPPORTED_SYNTAX)
def video() -> bytes:
    return compressed("1.2.840.10008.1.2.4.100", fragments(b"\0\0\1\xb3" + bytes(500)))


@_kind(Reason.UNSUPPORTED_SYNTAX)
def jpeg_xl() -> bytes:
    return compressed("1.2.840.10008.1.2.4.110", fragments(b"\xff\x0a" + bytes(800)))


@_kind(Reason.UNSUPPORTED_SYNTAX)
def private_syntax() -> bytes:
    return compressed("1.2.826.0.1.3680043.9.9.9", fragments(bytes(800)))


@_kind(Reason.UNSUPPORTED_SYNTAX)
def syntax_is_a_path() -> bytes:
    return compressed("../../../../etc/passwd", fragments(bytes(800)))
