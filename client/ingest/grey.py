"""Stored values -> 8-bit grey, as one table worked out from the image's histogram.

The order matters and is fixed: unused bits are removed, padding is set aside, then modality transformation,
VOI transformation, polarity, optional statistical window, and quantisation. Statistics therefore never see
padding, and polarity sees display values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np

from client.ingest.codes import Reason
from client.ingest.polarity import Polarity
from client.ingest.refusal import Refusal
from client.ingest.voi import Lut, Rescale, Window
from models.config import config

EPSILON = 1e-6
_EXACT_IN_FLOAT32 = 1 << 24
_WIDE_LUT = int(cv2.__version__.split(".")[0]) >= 5  # OpenCV 4 looks up 8-bit values only


@config
class Intensity:
    """How values become 8-bit grey.

    ``voi`` honours the header's VOI table or window; where there is none, or it is ignored, the range of the
    values (between the two percentiles) fills 0..255. ``window = statistics`` then clips to ``centre`` plus
    and minus half of ``width`` standard deviations of the whole image, and stretches what is left to 0..255.
    """

    voi: Literal["header", "ignore"] = "header"
    window: Literal["none", "statistics"] = "none"
    centre: Literal["median", "mean"] = "median"
    width: float = 4.0  # whole width, in standard deviations
    percentiles: tuple[float, float] = (0.0, 100.0)  # of the range, where no VOI transformation is used

    def check(self) -> None:
        if not self.width > 0:
            raise ValueError(f"width: {self.width} is not allowed; give a number of standard deviations above 0")
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"percentiles: {self.percentiles} is not allowed; give 0 <= low < high <= 100")


@dataclass
class Greys:
    """The table (one 8-bit grey per level) and the record of how it came about."""

    table: np.ndarray
    applied: dict[str, Any] = field(default_factory=dict)


def needs_every_pixel(vois: list[Lut | Window], intensity: Intensity) -> bool:
    """Whether the grey table depends on the range or the statistics of the image, or on the header alone."""
    return intensity.voi == "ignore" or intensity.window == "statistics" or not vois


def histogram(stored: np.ndarray, step: int = 1) -> np.ndarray:
    """Counts (int64) of every uint8 or uint16 value, exact for the rows looked at: every ``step``-th."""
    stored = stored[::step]
    size = 256 if stored.dtype == np.uint8 else 65536
    counts = np.zeros(size, np.int64)
    rows = max(1, (_EXACT_IN_FLOAT32 - 1) // stored.shape[1])  # OpenCV counts in float32
    for top in range(0, stored.shape[0], rows):
        part = np.ascontiguousarray(stored[top : top + rows])
        counts += cv2.calcHist([part], [0], None, [size], [0, size]).ravel().astype(np.int64)
    return counts


def levels_of(*, shift: int, bits: int, signed: bool) -> np.ndarray:
    """The number that each stored word stands for: unused bits dropped, sign extended (PS3.5 8.1.1).

    Only ``2 ** (shift + bits)`` words are listed: with the bits above dropped, the others repeat them.
    """
    stored = np.arange(1 << (shift + bits)) >> shift
    return np.where(stored >> (bits - 1), stored - (1 << bits), stored) if signed else stored


def look_up(stored: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Grey of every word; a table shorter than the range of words repeats, as :func:`levels_of` does."""
    table = np.tile(table, (256 if stored.dtype == np.uint8 else 65536) // len(table))
    if stored.dtype == np.uint8 or _WIDE_LUT:
        return cv2.LUT(np.ascontiguousarray(stored), table)
    return table[stored]


def grey_table(
    levels: np.ndarray,
    counts: np.ndarray,
    *,
    padding: np.ndarray,
    modality: Rescale | Lut,
    vois: list[Lut | Window],
    polarity: Polarity,
    intensity: Intensity,
) -> Greys:
    """8-bit grey of every level.

    Args:
        levels: value of each level (any numbers).
        counts: how many pixels have it.
        padding: True where the level means "no image here"; it becomes black and takes no part in statistics.
        modality, vois, polarity: from the header; the first usable VOI transformation is taken.
        intensity: the site's options.

    Raises:
        Refusal: BLANK_IMAGE if every pixel would have the same grey.
    """
    present = (counts > 0) & ~padding
    if not present.any():
        raise Refusal(Reason.BLANK_IMAGE, "padding")
    values = modality.apply(levels.astype(np.float64))
    if not np.isfinite(values[present]).all():
        raise Refusal(Reason.BAD_HEADER, "rescale")
    applied: dict[str, Any] = {"modality": "lut" if isinstance(modality, Lut) else "rescale", "voi": "none"}
    shown = None
    if intensity.voi == "header":
        for voi in vois:
            candidate = voi.display(values) if isinstance(voi, Lut) else voi.apply(values)
            if np.ptp(candidate[present]) > 1 / 255:
                shown = candidate
                applied["voi"] = "lut" if isinstance(voi, Lut) else voi.kind.lower()
                break
            applied["voi_outside_values"] = True
    bounds = (0.0, 1.0)
    if shown is None:
        shown = values
        bounds = _range(values, counts, present, intensity.percentiles)
    if polarity.invert:
        shown = bounds[1] + bounds[0] - shown
    if intensity.window == "statistics":
        shown, bounds = _statistical_window(shown, counts, present, intensity)
    applied |= {"inverted": polarity.invert, "window": intensity.window}
    table = _quantise(shown, bounds)
    if len(np.unique(table[present])) < 2:
        raise Refusal(Reason.BLANK_IMAGE)
    table[padding] = 0
    return Greys(table, applied)


def _range(
    values: np.ndarray, counts: np.ndarray, present: np.ndarray, percentiles: tuple[float, float]
) -> tuple[float, float]:
    if percentiles == (0.0, 100.0):
        return float(values[present].min()), float(values[present].max())
    low, high = (_quantile(values, counts, present, p / 100) for p in percentiles)
    return low, high


def _statistical_window(
    shown: np.ndarray, counts: np.ndarray, present: np.ndarray, intensity: Intensity
) -> tuple[np.ndarray, tuple[float, float]]:
    x, n = shown[present], counts[present].astype(np.float64)
    mean = float((x * n).sum() / n.sum())
    spread = float(np.sqrt((n * (x - mean) ** 2).sum() / n.sum()))
    if intensity.centre == "mean":
        centre = mean
    else:
        # The median of an even count is the mean of the two in the middle.
        centre = (_nth(x, n, (n.sum() - 1) // 2) + _nth(x, n, n.sum() // 2)) / 2
    half = spread * intensity.width / 2
    clipped = np.clip(shown, centre - half, centre + half)
    return clipped, (float(clipped[present].min()), float(clipped[present].max()))


def _quantile(values: np.ndarray, counts: np.ndarray, present: np.ndarray, share: float) -> float:
    n = counts[present]
    return _nth(values[present], n, share * (n.sum() - 1))


def _nth(values: np.ndarray, counts: np.ndarray, rank: float) -> float:
    """Value at ``rank`` (0 first) among ``values`` repeated ``counts`` times."""
    order = np.argsort(values, kind="stable")
    place = np.searchsorted(np.cumsum(counts[order]), rank, side="right")
    return float(values[order][min(place, len(order) - 1)])


def _quantise(shown: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """Stretch ``bounds`` to 0..255 and cut the fraction off, as the reference pre-processing does."""
    low, high = bounds
    unit = np.clip((shown - low) / (high - low + (EPSILON if bounds != (0.0, 1.0) else 0.0)), 0.0, 1.0)
    return (unit * 255).astype(np.uint8)
