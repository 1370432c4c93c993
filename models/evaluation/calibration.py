"""How far probabilities are from frequencies: calibration error, its chance level, Brier score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from models.evaluation.metrics import Floats, Ints, counted, require_finite
from models.studies.schema import Label

BINS = 15
IMAGES_PER_BIN = 10


@dataclass(frozen=True)
class Reliability:
    """Mean probability, observed frequency and number of images per bin; each [bins], rising."""

    probability: Floats
    frequency: Floats
    count: Ints


def equal_mass_bins(probabilities: ArrayLike, bins: int = BINS) -> Ints:
    """Bin of each image [n], so that bins hold (nearly) equal numbers of images.

    The image with middle rank r of n (0-based, ties share their mean rank, so they are never split and the
    order of the images does not matter) falls into bin ``floor(r * bins / n)``. At most one bin for every
    ``IMAGES_PER_BIN`` images: with fewer in a bin, the error would be mostly sampling noise.
    """
    probabilities = np.asarray(probabilities, np.float64)
    n = len(probabilities)
    bins = max(1, min(bins, n // IMAGES_PER_BIN))
    _, group, size = np.unique(probabilities, return_inverse=True, return_counts=True)
    middle = np.cumsum(size) - (size + 1) / 2
    return np.floor(middle * bins / max(n, 1)).astype(np.int64)[group]


def reliability(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> Reliability:
    """Mean probability against observed frequency in equal-mass bins; empty bins are not listed."""
    keep = counted(labels)
    chosen = require_probabilities(np.asarray(probabilities)[keep])
    positive = np.asarray(labels)[keep] == Label.PRESENT
    _, index = np.unique(equal_mass_bins(chosen, bins), return_inverse=True)
    count = np.bincount(index)
    return Reliability(np.bincount(index, weights=chosen) / count, np.bincount(index, weights=positive) / count, count)


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> float:
    """Mean over images of |mean probability - observed frequency| of the image's equal-mass bin; in [0, 1].

    Biased upwards for few images, even for a perfectly calibrated model: read it beside
    :func:`calibration_error_floor`. Resampling adds that bias a second time (measured: a percentile interval
    covers the truth of a calibrated model in 0 of 200 trials), so no interval is given anywhere.
    NaN without a label that counts.
    """
    table = reliability(probabilities, labels, bins)
    gap = np.abs(table.probability - table.frequency)
    return float((gap * table.count).sum() / table.count.sum()) if len(table.count) else float("nan")


def calibration_error_floor(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> float:
    """The calibration error that a perfectly calibrated model with these probabilities would show by chance.

    If outcomes are independent with the stated probabilities, the gap of a bin is nearly normal with variance
    ``sum p (1 - p) / n_bin^2``, whose mean absolute value is ``sqrt(2 / pi)`` standard deviations. Labels
    only choose which images count. NaN without a label that counts.
    """
    chosen = require_probabilities(np.asarray(probabilities)[counted(labels)])
    if not len(chosen):
        return float("nan")
    variance = np.bincount(equal_mass_bins(chosen, bins), weights=chosen * (1 - chosen))
    return float(np.sqrt(2 / np.pi * variance).sum() / len(chosen))


def brier(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean of (probability - outcome) squared; in [0, 1], 0 is best. NaN without a label that counts."""
    keep = counted(labels)
    chosen = require_probabilities(np.asarray(probabilities)[keep])
    gap = chosen - (np.asarray(labels)[keep] == Label.PRESENT)
    return float(np.mean(gap**2)) if len(gap) else float("nan")


def require_probabilities(values: ArrayLike) -> Floats:
    """``values`` as float64; ValueError unless all are finite and in [0, 1]."""
    values = np.asarray(values, np.float64)
    require_finite(values)
    if ((values < 0) | (values > 1)).any():
        raise ValueError(
            f"probabilities must lie in [0, 1], got {values.min():g} to {values.max():g}; "
            f"apply a sigmoid to logits first"
        )
    return values
