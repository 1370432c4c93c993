"""Modality and VOI transformations of PS3.3 (C.11.1, C.11.2), as functions of values, not of images.

Both act on single values, so they are worked out once for every value a pixel can have (at most 65,536) and
applied to the image as one table; float64 throughout costs nothing that way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydicom.dataset import Dataset

from client.ingest.codes import Reason
from client.ingest.refusal import Refusal

Kind = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]


@dataclass(frozen=True)
class Window:
    """Window centre and width with the function that joins them (C.11.2.1.2, C.11.2.1.3)."""

    centre: float
    width: float
    kind: Kind = "LINEAR"

    @property
    def usable(self) -> bool:
        """LINEAR needs a width of at least 1, the others above 0; all need finite numbers."""
        finite = math.isfinite(self.centre) and math.isfinite(self.width)
        return finite and (self.width >= 1 if self.kind == "LINEAR" else self.width > 0)

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Values -> [0, 1], the display range."""
        c, w = self.centre, self.width
        if self.kind == "SIGMOID":
            with np.errstate(over="ignore"):
                return 1.0 / (1.0 + np.exp(-4.0 * (x - c) / w))
        if self.kind == "LINEAR_EXACT":
            return np.clip((x - c) / w + 0.5, 0.0, 1.0)
        if w == 1:
            return (x > c - 0.5).astype(np.float64)  # the slope is infinite: a threshold
        return np.clip((x - (c - 0.5)) / (w - 1) + 0.5, 0.0, 1.0)


@dataclass(frozen=True)
class Lut:
    """A look-up table: entry 0 belongs to input ``first``; inputs beyond either end take the end's entry
    (C.11.1.1)."""

    first: int
    entries: np.ndarray
    bits: int

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Values -> entries."""
        place = np.clip(np.rint(x) - self.first, 0, len(self.entries) - 1)
        return self.entries[place.astype(np.int64)].astype(np.float64)

    def display(self, x: np.ndarray) -> np.ndarray:
        """Values -> [0, 1]. The full range is that of the bits the entries really use: descriptors that
        state 16 bits for a table of 12 are common, and would leave the image nearly black."""
        used = max(int(self.entries.max()).bit_length(), 1)
        return self.apply(x) / float((1 << min(used, self.bits)) - 1)


@dataclass(frozen=True)
class Rescale:
    """Modality rescale: slope * stored + intercept."""

    slope: float = 1.0
    intercept: float = 0.0

    def apply(self, x: np.ndarray) -> np.ndarray:
        return x * self.slope + self.intercept


def read_modality(dataset: Dataset, *, signed: bool, little: bool) -> tuple[Rescale | Lut, list[str]]:
    """The modality transformation of a data set, and notes.

    A table that cannot be used is refused: without it the values mean something else. A slope of zero or a
    number that is none is ignored: it says nothing.

    Raises:
        Refusal: BAD_HEADER.
    """
    items = _items(dataset, "ModalityLUTSequence")
    if items:
        lut = _lut(items[0], signed, little)
        if lut is None:
            raise Refusal(Reason.BAD_HEADER, "ModalityLUTSequence")
        return lut, []
    slope, intercept = _float(dataset, "RescaleSlope", 1.0), _float(dataset, "RescaleIntercept", 0.0)
    if slope is None or intercept is None or slope == 0:
        return Rescale(), ["rescale_ignored"]
    return Rescale(slope, intercept), []


def read_voi(dataset: Dataset, *, signed: bool, little: bool) -> tuple[list[Lut | Window], list[str]]:
    """Usable VOI transformations, the preferred one first, and notes of what was unusable.

    A table is more specific than a window, so tables come first; among several the first is the one that its
    maker shows by default.
    """
    found: list[Lut | Window] = []
    notes: list[str] = []
    for item in _items(dataset, "VOILUTSequence"):
        lut = _lut(item, signed, little)
        if lut is None:
            notes.append("voi_lut_ignored")
        else:
            found.append(lut)
    kind = _kind(dataset, notes)
    centres, widths = _floats(dataset, "WindowCenter"), _floats(dataset, "WindowWidth")
    for centre, width in zip(centres, widths, strict=False):
        window = Window(centre, width, kind)
        if window.usable:
            found.append(window)
        else:
            notes.append("window_ignored")
    return found, notes


def _kind(dataset: Dataset, notes: list[str]) -> Kind:
    try:
        text = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    except Exception:
        text = ""
    if text in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        return text  # type: ignore[return-value]
    notes.append("voi_function_unknown")
    return "LINEAR"


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    try:
        return list(dataset.get(keyword) or ())
    except MemoryError:
        raise
    except RecursionError:
        raise Refusal(Reason.HEADER_LIMIT, "nesting") from None
    except Exception:
        raise Refusal(Reason.BAD_HEADER, keyword) from None


def _lut(item: Dataset, signed: bool, little: bool) -> Lut | None:
    """The table of one sequence item, or None if it cannot be used."""
    try:
        count, first, bits = (int(v) for v in item["LUTDescriptor"].value)
        raw: Any = item["LUTData"].value
    except MemoryError:
        raise
    except Exception:
        return None
    # The descriptor has 16-bit fields whose sign depends on where it was read (C.11.1.1.1).
    count = (count & 0xFFFF) or 65536
    first &= 0xFFFF
    if signed and first > 0x7FFF:
        first -= 0x10000
    if not 8 <= bits <= 16:
        return None
    if isinstance(raw, bytes):
        wide = len(raw) >= 2 * count
        entries = np.frombuffer(raw, ("<u2" if little else ">u2") if wide else np.uint8, count=len(raw) // (1 + wide))
    else:
        try:
            entries = np.asarray([raw] if isinstance(raw, int) else list(raw), np.int64) & 0xFFFF
        except (TypeError, ValueError, OverflowError):
            return None
    if len(entries) < count:
        return None
    entries = entries[:count].astype(np.uint16)
    return Lut(first, entries, bits) if entries.max() > entries.min() else None


def _floats(dataset: Dataset, keyword: str) -> list[float]:
    try:
        value = dataset.get(keyword)
        if value is None or value == "":
            return []
        if isinstance(value, str | float | int):
            return [float(value)]
        return [float("nan") if v is None or v == "" else float(v) for v in value]
    except MemoryError:
        raise
    except Exception:
        return [float("nan")]


def _float(dataset: Dataset, keyword: str, default: float) -> float | None:
    values = _floats(dataset, keyword)
    if not values:
        return default
    return values[0] if math.isfinite(values[0]) else None
