"""A radiograph as its file holds it, typed and bounded, for the export: the half that runs in the child
process.

Only values that the export writes are read, and each in a form that no text fits in: numbers within ranges,
words from lists, tables that rise or fall throughout. What a compressed stream carries beside its pixels
(comments, application segments, thumbnails) and what hides in unused bits of a pixel (old overlays) stays
behind: pixels are decoded and only their stored bits kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset

from client.ingest.codes import Reason
from client.ingest.decode import DecodeConfig, decode_source
from client.ingest.framing import Framing
from client.ingest.gate import Gate, check_header
from client.ingest.grey import Intensity
from client.ingest.header import Header, read_header
from client.ingest.limits import Limits
from client.ingest.margin import text_length
from client.ingest.part10 import Source, open_source
from client.ingest.pixels import Layout, read_layout, read_stored
from client.ingest.polarity import read_shape
from client.ingest.quiet import quiet
from client.ingest.raster import Rejected, read_bytes
from client.ingest.refusal import Refusal
from client.ingest.voi import Lut, Rescale, Window, read_modality, read_voi
from models.config import build

MAX_VOIS = 4
LARGEST_NUMBER = 1e6
"""Bound of windows and rescale values; 16-bit pixels need less, and longer numbers could be identifiers."""

_SPACINGS = {"PixelSpacing": 10.0, "ImagerPixelSpacing": 10.0, "PixelAspectRatio": 1000.0}
_LOSSY = frozenset({uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K})
"""Transfer syntaxes that may have lost something; JPEG 2000 and HTJ2K are counted so unless the file says
no.
"""

_KINDS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True, repr=False, kw_only=True)
class Radiograph:
    """One grey image and what is needed to show it.

    ``pixels`` holds the stored bits alone, right aligned: uint8 or uint16 (rows, columns); with ``signed``
    they are two's complement of ``stored`` bits. ``chest``: the header names the chest. ``padding`` holds
    PixelPaddingValue and its range limit as such bits. ``lossy`` is ``None`` where nothing is known.
    """

    header: Header
    view: str
    chest: bool
    photometric: str
    allocated: int
    stored: int
    signed: bool
    pixels: np.ndarray
    modality: Rescale | Lut
    vois: tuple[Lut | Window, ...] = ()
    spacing: dict[str, tuple[float, float]]
    padding: tuple[int, ...] = ()
    shape: str = ""
    lossy: bool | None = None

    def plain(self) -> dict[str, Any]:
        """Everything but the pixels, ready for JSON."""
        return {
            "header": self.header.plain(),
            "view": self.view,
            "chest": self.chest,
            "photometric": self.photometric,
            "bits": [self.allocated, self.stored, int(self.signed)],
            "size": list(self.pixels.shape),
            "modality": _plain(self.modality),
            "vois": [_plain(voi) for voi in self.vois],
            "spacing": {name: list(pair) for name, pair in self.spacing.items()},
            "padding": list(self.padding),
            "shape": self.shape,
            "lossy": self.lossy,
        }

    @classmethod
    def from_plain(cls, values: Any, data: bytes | memoryview) -> Radiograph:
        """Rebuild and check what an untrusted child sent.

        Raises:
            ValueError: for anything that :func:`read_radiograph` could not have made; the text names no
                value.
        """
        try:
            allocated, stored, signed = (int(v) for v in values["bits"])
            rows, columns = (int(v) for v in values["size"])
            words = np.frombuffer(data, np.uint8 if allocated == 8 else "<u2")
            made = cls(
                header=Header.from_plain(values["header"]),
                view=str(values["view"]),
                chest=bool(values["chest"]),
                photometric=str(values["photometric"]),
                allocated=allocated,
                stored=stored,
                signed=bool(signed),
                pixels=words.reshape(rows, columns),
                modality=_from_plain(values["modality"]),  # type: ignore[arg-type]
                vois=tuple(_from_plain(voi) for voi in values["vois"]),  # type: ignore[arg-type]
                spacing={str(k): (float(v[0]), float(v[1])) for k, v in values["spacing"].items()},
                padding=tuple(int(v) for v in values["padding"]),
                shape=str(values["shape"]),
                lossy=None if values["lossy"] is None else bool(values["lossy"]),
            )
            _check(made)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError, Refusal):
            raise ValueError("radiograph: the child process sent something else than a radiograph") from None
        return made


def serve(task: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray | None]:
    """Answer one task of :class:`client.ingest.pool.Pool`: ``{"path", "text", "gate", "limits"}``.

    The answer is :meth:`Radiograph.plain` with the pixels beside it, or ``{"code": ...}``.
    """
    limits = build(Limits, task["limits"])
    try:
        with quiet():
            data = read_bytes(task["path"], limits.file_bytes)
            image = read_radiograph(data, build(Gate, task["gate"]), limits, task["text"])
    except (Refusal, Rejected) as refused:
        return {"code": (refused.reason if isinstance(refused, Refusal) else refused.code).value}, None
    except MemoryError:
        return {"code": Reason.MEMORY_LIMIT.value}, None
    except Exception:  # one bad file never stops a batch
        return {"code": Reason.UNEXPECTED.value}, None
    return image.plain(), image.pixels


def read_radiograph(data: bytes, gate: Gate, limits: Limits, text: int) -> Radiograph:
    """Read one file given as bytes. Untrusted files only in a child process.

    Args:
        text: letters in one line of the image's margin from which on the image counts as written on.

    Raises:
        Refusal: with the reason code of parsing, gating, decoding, or of text in the image.
    """
    source = open_source(data, limits)
    header = read_header(source.dataset)
    passed = check_header(header, gate)
    layout, _ = read_layout(source, limits)
    stored, _ = read_stored(source, layout)
    dataset, order = source.dataset, {"signed": layout.signed, "little": source.little}
    vois, _ = read_voi(dataset, **order)
    made = Radiograph(
        header=header,
        view=passed.view,
        chest=passed.chest_from != "none",
        photometric=layout.photometric,
        allocated=layout.allocated,
        stored=layout.stored,
        signed=layout.signed,
        pixels=_stored_bits(stored, layout),
        modality=read_modality(dataset, **order)[0],
        vois=tuple(vois[:MAX_VOIS]),
        spacing=_spacings(dataset),
        padding=_padding(dataset, layout.stored),
        shape=_shape(dataset),
        lossy=_lossy(source),
    )
    _check(made)
    _look_for_text(source, limits, text)
    return made


def _look_for_text(source: Source, limits: Limits, least: int) -> None:
    """Refuse an image with writing in it, as the header shows it and over its full range of values.

    Unlike the store's image nothing is cut off: the writing is often in the black border.
    """
    whole = Framing(crop=False, square_pixels=False)
    for intensity in (Intensity(), Intensity(voi="ignore", percentiles=(0.1, 99.9))):
        shown = decode_source(source, DecodeConfig(intensity=intensity, framing=whole), limits)
        if text_length(shown.pixels) >= least:
            raise Refusal(Reason.BURNED_IN_TEXT)


def _stored_bits(words: np.ndarray, layout: Layout) -> np.ndarray:
    mask = (1 << layout.stored) - 1
    kind = np.uint8 if layout.allocated == 8 else np.uint16
    return (words.astype(np.uint16) >> layout.shift & mask).astype(kind)


def _check(image: Radiograph) -> None:
    """Raises Refusal (BAD_HEADER) unless everything is within its range."""
    bits = (1 << image.stored) - 1
    checks = {
        "photometric": image.photometric in ("MONOCHROME1", "MONOCHROME2"),
        "bits": image.allocated in (8, 16) and 1 <= image.stored <= image.allocated,
        "pixels": image.pixels.ndim == 2 and image.pixels.size > 0 and int(image.pixels.max()) <= bits,
        "modality": _bounded(image.modality),
        "voi": len(image.vois) <= MAX_VOIS and all(_bounded(v) and not isinstance(v, Rescale) for v in image.vois),
        "spacing": all(_spacing_plausible(name, pair) for name, pair in image.spacing.items()),
        "padding": len(image.padding) <= 2 and all(0 <= value <= bits for value in image.padding),
        "shape": image.shape in ("", "IDENTITY", "INVERSE"),
        "view": image.view in ("PA", "AP", "LATERAL", "UNKNOWN"),
    }
    wrong = [name for name, right in checks.items() if not right]
    if wrong:
        raise Refusal(Reason.BAD_HEADER, wrong[0])


def _bounded(transform: Rescale | Lut | Window) -> bool:
    """Whether only numbers that an image needs are in it. A table must rise or fall throughout: no text
    does.
    """
    if isinstance(transform, Rescale):
        return _small(transform.slope) and _small(transform.intercept)
    if isinstance(transform, Window):
        return _small(transform.centre) and _small(transform.width) and transform.kind in _KINDS
    steps = np.diff(transform.entries.astype(np.int64))
    return (
        8 <= transform.bits <= 16
        and -32768 <= transform.first <= 65535
        and 2 <= len(transform.entries) <= 65536
        and bool((steps >= 0).all() or (steps <= 0).all())
    )


def _small(value: float) -> bool:
    return math.isfinite(value) and abs(value) <= LARGEST_NUMBER


def _spacings(dataset: Dataset) -> dict[str, tuple[float, float]]:
    found = {}
    for name in _SPACINGS:
        try:
            value = dataset.get(name)
            pair = (float(value[0]), float(value[1])) if value is not None and len(value) == 2 else None
        except MemoryError:
            raise
        except Exception:  # an unreadable spacing is no spacing
            pair = None
        if pair is not None and _spacing_plausible(name, pair):
            found[name] = pair
    return found


def _spacing_plausible(name: str, pair: tuple[float, float]) -> bool:
    return name in _SPACINGS and all(1e-3 <= value <= _SPACINGS[name] for value in pair)


def _padding(dataset: Dataset, stored: int) -> tuple[int, ...]:
    found = []
    for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        try:
            value = dataset.get(name)
            if value is None:
                break
            found.append(int(value) & ((1 << stored) - 1))
        except MemoryError:
            raise
        except Exception:  # unreadable padding is no padding
            break
    return tuple(found)


def _shape(dataset: Dataset) -> str:
    shape = read_shape(dataset)
    return shape if shape in ("IDENTITY", "INVERSE") else ""


def _lossy(source: Source) -> bool | None:
    try:
        said = str(source.dataset.get("LossyImageCompression") or "")
    except MemoryError:
        raise
    except Exception:
        said = ""
    if said == "01" or (source.syntax in _LOSSY and said != "00"):
        return True
    return False if said == "00" else None


def _plain(transform: Rescale | Lut | Window) -> list[Any]:
    if isinstance(transform, Rescale):
        return ["rescale", transform.slope, transform.intercept]
    if isinstance(transform, Window):
        return ["window", transform.centre, transform.width, transform.kind]
    return ["lut", transform.first, transform.bits, transform.entries.tolist()]


def _from_plain(values: list[Any]) -> Rescale | Lut | Window:
    kind, *rest = values
    if kind == "rescale":
        return Rescale(float(rest[0]), float(rest[1]))
    if kind == "window":
        return Window(float(rest[0]), float(rest[1]), rest[2])
    if kind == "lut":
        return Lut(int(rest[0]), np.asarray(rest[2], np.uint16), int(rest[1]))
    raise ValueError("unknown transformation")
