"""Walks the data elements of a DICOM data set without reading their values.

A data set is handed to pydicom only in slices: this walk finds the elements that the allow-list names and
where the pixel data lie, and refuses what a recursive reader would choke on (deep nesting, endless small
elements). It keeps its own stack, so depth costs nothing, and looks at every byte at most once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.datadict import dictionary_VR

from client.ingest.codes import Reason
from client.ingest.limits import Limits
from client.ingest.refusal import Refusal

UNDEFINED = 0xFFFFFFFF
PIXEL_DATA = 0x7FE00010
PIXEL_TAGS = (0x7FE00008, 0x7FE00009, PIXEL_DATA)
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())


@dataclass(frozen=True, slots=True)
class Element:
    """One top-level element: ``data[start:end]`` is the whole of it, ``data[value:end]`` its value.

    An undefined length is resolved: ``end`` lies behind the closing delimiter. ``end`` may pass the end of
    the data for pixel data only; such a file is cut short.
    """

    tag: int
    vr: bytes  # b"" where the encoding is implicit
    start: int
    value: int
    end: int
    undefined: bool


class Walker:
    """Walks ``data`` in one encoding. ``implicit`` and ``little`` as in the transfer syntax."""

    def __init__(self, data: bytes, *, implicit: bool, little: bool, limits: Limits) -> None:
        self._data = data
        self._implicit = implicit
        order = "<" if little else ">"
        self._tag_of = struct.Struct(order + "HH").unpack_from
        self._short = struct.Struct(order + "H").unpack_from
        self._long = struct.Struct(order + "L").unpack_from
        self._limits = limits
        self._left = limits.elements

    def top_level(self, start: int) -> Iterator[Element]:
        """Elements from ``start`` on; the pixel data end the walk, whatever follows them is never looked at.

        Raises:
            Refusal: TRUNCATED, HEADER_LIMIT or BAD_HEADER.
        """
        position, total = start, len(self._data)
        while position < total:
            if total - position < 8 and not any(self._data[position:]):
                return  # a few zero bytes of padding
            tag, vr, length, value = self._head(position, self._implicit)
            if tag in PIXEL_TAGS:
                end = self._end_of_fragments(value) if length == UNDEFINED else value + length
                yield Element(tag, vr, position, value, end, length == UNDEFINED)
                return
            if tag >> 16 == 0xFFFE:
                # A delimiter that closes nothing: stray, harmless, and seen in real files.
                position = value + (length if tag == _ITEM and length != UNDEFINED else 0)
                continue
            if length == UNDEFINED:
                end = self._walk_sequence(value, None, self._child_implicit(vr, self._implicit))
            else:
                end = value + length
                if end > total:
                    raise Refusal(Reason.TRUNCATED, "header")
                if self._is_sequence(tag, vr):
                    self._probe_sequence(value, end, self._implicit)
            yield Element(tag, vr, position, value, end, length == UNDEFINED)
            position = end

    def _head(self, at: int, implicit: bool) -> tuple[int, bytes, int, int]:
        """(tag, vr, length, position of the value) of the element at ``at``."""
        self._left -= 1
        if self._left < 0:
            raise Refusal(Reason.HEADER_LIMIT, "elements")
        try:
            group, element = self._tag_of(self._data, at)
            tag = group << 16 | element
            if implicit or group == 0xFFFE:
                return tag, b"", self._long(self._data, at + 4)[0], at + 8
            vr = self._data[at + 4 : at + 6]
            if not (vr.isalpha() and vr.isupper()):
                # Some writers switch to implicit encoding in the middle; pydicom reads them so too.
                return tag, b"", self._long(self._data, at + 4)[0], at + 8
            if vr in _LONG_VRS:
                return tag, vr, self._long(self._data, at + 8)[0], at + 12
            return tag, vr, self._short(self._data, at + 6)[0], at + 8
        except struct.error:
            raise Refusal(Reason.TRUNCATED, "header") from None

    @staticmethod
    def _child_implicit(vr: bytes, implicit: bool) -> bool:
        """An undefined length under VR UN holds implicit elements (PS3.5 6.2.2 note 2)."""
        return implicit or vr == b"UN"

    @staticmethod
    def _is_sequence(tag: int, vr: bytes) -> bool:
        if vr:
            return vr == b"SQ"
        try:
            return dictionary_VR(tag) == "SQ"
        except KeyError:
            return False

    def _probe_sequence(self, start: int, end: int, implicit: bool) -> None:
        """Depth check of a sequence whose end is known: malformed content is its own affair, depth is
        ours."""
        try:
            self._walk_sequence(start, end, implicit)
        except Refusal as refusal:
            if refusal.reason is Reason.HEADER_LIMIT:
                raise

    def _walk_sequence(self, position: int, end: int | None, implicit: bool) -> int:
        """Walk one sequence to its end with an explicit stack; returns the position behind it.

        Each stack entry is (inside an item?, end or None if delimited, implicit?).
        """
        total = len(self._data)
        stack: list[tuple[bool, int | None, bool]] = [(False, end, implicit)]
        while stack:
            in_item, end, implicit = stack[-1]
            if end is not None and position >= end:
                stack.pop()
                position = end
                continue
            tag, vr, length, value = self._head(position, implicit)
            if tag == (_ITEM_END if in_item else _SEQUENCE_END):
                stack.pop()
                position = value
                continue
            defined_end = None if length == UNDEFINED else value + length
            if defined_end is not None and defined_end > total:
                raise Refusal(Reason.TRUNCATED, "sequence")
            if not in_item:
                if tag != _ITEM:
                    raise Refusal(Reason.BAD_HEADER, "sequence")
                stack.append((True, defined_end, implicit))
                position = value
            elif defined_end is None or self._is_sequence(tag, vr):
                if len(stack) // 2 >= self._limits.nesting:
                    raise Refusal(Reason.HEADER_LIMIT, "nesting")
                if defined_end is None and vr in (b"OB", b"OW"):
                    position = self._end_of_fragments(value)  # a compressed icon
                    continue
                stack.append((False, defined_end, self._child_implicit(vr, implicit)))
                position = value
            else:
                position = defined_end
        return position

    def fragments(self, element: Element) -> list[tuple[int, int]]:
        """(start, end) of the items of encapsulated pixel data, the offset table first.

        Raises:
            Refusal: TRUNCATED or BAD_HEADER.
        """
        items: list[tuple[int, int]] = []
        self._end_of_fragments(element.value, items)
        return items

    def _end_of_fragments(self, position: int, items: list[tuple[int, int]] | None = None) -> int:
        start, total = position, len(self._data)
        while True:
            if position == total and position > start:
                return total  # the closing delimiter is missing, every fragment is whole
            tag, _, length, value = self._head(position, True)
            if tag == _SEQUENCE_END:
                return value
            if tag != _ITEM or length == UNDEFINED:
                raise Refusal(Reason.BAD_CODESTREAM, "fragments")
            if value + length > total:
                raise Refusal(Reason.TRUNCATED, "fragments")
            if items is not None:
                items.append((value, value + length))
            position = value + length
