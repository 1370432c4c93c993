"""Display values of a film to stored values, with the window or table that leads back to them."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from client.ingest.phantom.habits import Window

_MARGIN = 0.02  # a sigmoid never reaches black or white: values are kept this far from both


def store(
    dataset: Dataset,
    value: np.ndarray,
    bits: int,
    window: Window,
    inverted: bool,
    order: str,
    rng: np.random.Generator,
) -> np.ndarray:
    """Stored values, uint8 or uint16 [H, W], for display ``value`` in [0, 1]; sets the grey scale.

    Applying modality and VOI transformation, and for MONOCHROME1 the inversion, to the result gives
    ``value`` back up to rounding. ``order`` is the byte order of the file, '<' or '>'. What is shown as
    plain black or white spreads beyond the window, as on a real detector.
    """
    top = 2**bits - 1
    v = 1 - value if inverted else value
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    if window == "none":
        return _whole(v * top, bits)
    if window == "table":
        return _whole(_table(dataset, v, bits, order, rng), bits)
    slope, intercept = _rescale(dataset, bits, rng)
    # Window within the range of stored values, leaving room on both sides.
    low, high = top * rng.uniform(0.08, 0.2), top * rng.uniform(0.75, 0.95)
    if window == "sigmoid":
        centre, width = (low + high) / 2, (high - low) * 0.5
        safe = np.clip(v, _MARGIN, 1 - _MARGIN)
        x = centre - width / 4 * np.log(1 / safe - 1)
        dataset.VOILUTFunction = "SIGMOID"
    elif window == "exact":
        centre, width = (low + high) / 2, high - low
        x = centre + (v - 0.5) * width
        dataset.VOILUTFunction = "LINEAR_EXACT"
    else:
        centre, width = (low + high) / 2, high - low
        x = centre - 0.5 + (v - 0.5) * (width - 1)
    spread = rng.exponential(0.15 * low, value.shape).astype(np.float32)
    x = np.where(v <= 0, x - np.minimum(spread, low), np.where(v >= 1, x + np.minimum(spread, top - high), x))
    centre, width = centre * slope + intercept, width * abs(slope)
    if window == "two windows":
        dataset.WindowCenter = [_decimal(centre), _decimal(centre * 0.9)]
        dataset.WindowWidth = [_decimal(width), _decimal(width * 0.6)]
        dataset.WindowCenterWidthExplanation = ["NORMAL", "HARDER"]
    else:
        dataset.WindowCenter, dataset.WindowWidth = _decimal(centre), _decimal(width)
    return _whole(x, bits)


def _decimal(number: float) -> str:
    return f"{number:.10g}"[:16]


def _whole(x: np.ndarray, bits: int) -> np.ndarray:
    return np.clip(np.rint(x), 0, 2**bits - 1).astype(np.uint8 if bits <= 8 else np.uint16)


def _rescale(dataset: Dataset, bits: int, rng: np.random.Generator) -> tuple[float, float]:
    """Usually absent or the identity; now and then an offset."""
    draw = rng.random()
    if draw < 0.6:
        return 1.0, 0.0
    slope, intercept = (1.0, 0.0) if draw < 0.9 else (1.0, float(-(2 ** (bits - 2))))
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = slope, intercept, "US"
    return slope, intercept


def _table(dataset: Dataset, v: np.ndarray, bits: int, order: str, rng: np.random.Generator) -> np.ndarray:
    """A VOI table with a film-like curve, and stored values that it leads to ``v``."""
    first = int(2**bits * rng.uniform(0.02, 0.08))
    entries = int(2**bits * rng.uniform(0.80, 0.90))
    depth = 8 if bits <= 8 else min(bits, 12)
    a = rng.uniform(3.0, 6.0)
    raw = 1 / (1 + np.exp(-a * (np.linspace(0, 1, entries) - 0.5)))
    curve = (raw - raw[0]) / (raw[-1] - raw[0])
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [entries, first, depth])
    item.add_new("LUTData", "OW", np.rint(curve * (2**depth - 1)).astype(f"{order}u2").tobytes())
    item.LUTExplanation = "CHEST CURVE"
    dataset.VOILUTSequence = Sequence([item])
    return first + np.interp(v.ravel(), curve, np.arange(entries)).reshape(v.shape)
