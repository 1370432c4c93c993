"""A DICOM file -> the 8-bit grey image that models read, and a record of everything that was done to it.

The steps, in the only order that is right: stored words, unused bits off, padding aside, modality, VOI,
polarity, statistical window, 8 bits (:mod:`client.ingest.grey`); then black-border crop, orientation, and
one resampling to square pixels and the short side (:mod:`client.ingest.framing`). Values come before
geometry because the border is known to be black only once polarity is settled; the crop comes before the
resampling so that the short side is that of the picture, not of the collimator.

Third-party decoders run inside :func:`decode`. Give it untrusted files only through
:mod:`client.ingest.sandbox`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from client.ingest import framing as frame
from client.ingest import grey
from client.ingest.codes import Reason
from client.ingest.framing import Framing
from client.ingest.grey import Intensity
from client.ingest.limits import Limits
from client.ingest.part10 import Source, open_source
from client.ingest.pixels import Layout, read_layout, read_stored
from client.ingest.polarity import decide, read_shape
from client.ingest.refusal import Refusal
from client.ingest.voi import Rescale, read_modality, read_voi
from models.config import config

_SAMPLED_ROWS = 4


@config
class DecodeConfig:
    """How images are decoded. Part of the store's pre-processing hash."""

    intensity: Intensity = Intensity()
    framing: Framing = Framing()


@dataclass(frozen=True)
class Decoded:
    """``pixels`` is uint8 (H, W); ``applied`` records every step; ``flags`` names what a person should
    review."""

    pixels: np.ndarray
    applied: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


def decode(item: Path | str | bytes, config: DecodeConfig | None = None, limits: Limits | None = None) -> Decoded:
    """Decode one file, given by path or as bytes.

    Raises:
        Refusal: with the reason code. Nothing else is raised but MemoryError.
    """
    limits = limits or Limits()
    if not isinstance(item, bytes):
        path = Path(item)
        if path.stat().st_size > limits.file_bytes:
            raise Refusal(Reason.TOO_LARGE, "file")
        item = path.read_bytes()
    return decode_source(open_source(item, limits), config or DecodeConfig(), limits)


def decode_source(source: Source, config: DecodeConfig, limits: Limits) -> Decoded:
    """Decode a parsed file.

    Raises:
        Refusal: with the reason code.
    """
    layout, notes = read_layout(source, limits)
    if min(layout.rows, layout.columns) < config.framing.min_side:
        raise Refusal(Reason.TOO_SMALL)
    stored, pixel_notes = read_stored(source, layout)
    greys, value_notes, review = _greys(source, layout, stored, config.intensity)
    image = grey.look_up(stored, greys.table)
    image, crop_record = frame.crop(image, config.framing)
    aspect, aspect_notes = frame.pixel_aspect(source.dataset)
    image, aspect, turned = _orient(image, aspect, source.dataset, config.framing, review)
    pixels, size_record = frame.resize(image, aspect, config.framing)
    applied: dict[str, Any] = {
        "syntax": source.syntax,
        "photometric": layout.photometric,
        "bits": [layout.allocated, layout.stored],
        "signed": layout.signed,
        "size": [layout.rows, layout.columns],
        **greys.applied,
        **crop_record,
        "turned": turned,
        **size_record,
        "notes": [*source.notes, *notes, *pixel_notes, *value_notes, *aspect_notes],
    }
    return Decoded(pixels, applied, tuple(review))


def _greys(
    source: Source, layout: Layout, stored: np.ndarray, intensity: Intensity
) -> tuple[grey.Greys, list[str], list[str]]:
    """(table, notes, flags for review)"""
    dataset = source.dataset
    modality, notes = read_modality(dataset, signed=layout.signed, little=source.little)
    vois, voi_notes = read_voi(dataset, signed=layout.signed, little=source.little)
    slope = modality.slope if isinstance(modality, Rescale) else 1.0
    polarity = decide(layout.photometric, read_shape(dataset), slope)
    levels = grey.levels_of(shift=layout.shift, bits=layout.stored, signed=layout.signed)
    padding = _padding(dataset, levels, layout)
    # With a VOI transformation from the header the counts only guard against nonsense; a quarter of them
    # will do, and counting is half the cost of an uncompressed image. If it turns out to be useless, all
    # are counted.
    for step in (1,) if grey.needs_every_pixel(vois, intensity) else (_SAMPLED_ROWS, 1):
        words = grey.histogram(stored, step)
        counts = words.reshape(-1, len(levels)).sum(axis=0)
        try:
            greys = grey.grey_table(
                levels,
                counts,
                padding=padding,
                modality=modality,
                vois=vois,
                polarity=polarity,
                intensity=intensity,
            )
        except Refusal:
            if step == 1:
                raise
            continue
        if greys.applied["voi"] != "none":
            break
    if padding.any():
        greys.applied["padding_share"] = round(float(counts[padding].sum() / counts.sum()), 4)
    review = list(polarity.flags)
    if _unused_bits_set(words, layout):
        # Old overlays live there, and so do the true values where Bits Stored is wrong. The standard says
        # to drop these bits; unless an overlay explains them, someone should look.
        notes.append("unused_bits_dropped")
        if not source.overlays:
            review.append("unused_bits_set")
    return greys, notes + voi_notes, review


def _padding(dataset: Dataset, levels: np.ndarray, layout: Layout) -> np.ndarray:
    """True for the levels between PixelPaddingValue and PixelPaddingRangeLimit (PS3.3 C.7.5.1.1.2)."""
    ends = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        try:
            value = dataset.get(keyword)
            if value is not None:
                # Its VR, and so its sign, is written wrongly often enough: only the bits are trusted.
                bits = int(value) & ((1 << layout.stored) - 1)
                negative = layout.signed and bits >> (layout.stored - 1)
                ends.append(bits - (1 << layout.stored) if negative else bits)
        except MemoryError:
            raise
        except Exception:
            break
    if not ends:
        return np.zeros(len(levels), bool)
    return (levels >= min(ends)) & (levels <= max(ends))


def _unused_bits_set(counts: np.ndarray, layout: Layout) -> bool:
    """Whether a counted word has bits outside the stored ones that no sign extension explains."""
    words = np.flatnonzero(counts)
    low, high = layout.shift, layout.shift + layout.stored
    inside = words & (((1 << layout.stored) - 1) << low)
    above, below = words >> high, words & ((1 << low) - 1)
    if layout.signed:
        negative = inside >> (high - 1) & 1
        full = (1 << (layout.allocated - high)) - 1
        above = np.where((negative == 1) & (above == full), 0, above)
    return bool(above.any() or below.any())


def _orient(
    image: np.ndarray, aspect: float, dataset: Dataset, framing: Framing, review: list[str]
) -> tuple[np.ndarray, float, str]:
    """Mark, or undo, what PatientOrientation says about a frontal image."""
    try:
        value = dataset.get("PatientOrientation") or ""
        how = frame.turn_of(value if isinstance(value, str) else "\\".join(str(v) for v in value))
    except MemoryError:
        raise
    except Exception:
        how = "unknown"
    if how in ("none", "unknown"):
        return image, aspect, how
    if framing.orientation == "flag":
        review.append(f"orientation_{how}")
        return image, aspect, "none"
    swapped = how in ("transpose", "transverse", "turn90", "turn270")
    return frame.turn(image, how), 1 / aspect if swapped else aspect, how
