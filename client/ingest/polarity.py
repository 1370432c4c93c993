"""Which end of the values is black: decided once, here, from the photometric interpretation alone.

MONOCHROME1 means that the lowest value *after* the modality and VOI transformations is shown white (PS3.3
C.7.6.3.1.2), so inversion comes after them, and a negative rescale slope needs nothing more: it has already
turned the values round. The DX module couples MONOCHROME1 with presentation LUT shape INVERSE and
MONOCHROME2 with IDENTITY: the shape repeats what the photometric interpretation says and is not a second
inversion. Where the two contradict each other, or the slope is negative, exporters are known to get it
wrong: the image is marked for review, not guessed at.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

_COUPLED = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}


@dataclass(frozen=True)
class Polarity:
    """Whether to invert, and what a person should look at."""

    invert: bool
    flags: tuple[str, ...]


def decide(photometric: str, shape: str, slope: float) -> Polarity:
    """Polarity of a grey image.

    Args:
        photometric: MONOCHROME1 or MONOCHROME2.
        shape: presentation LUT shape: IDENTITY, INVERSE, or "" where absent.
        slope: rescale slope, 1 where absent or where a table takes its place.
    """
    flags = []
    if shape and shape != _COUPLED[photometric]:
        flags.append("polarity_contradicts_shape")
    if slope < 0:
        flags.append("negative_slope")
    return Polarity(photometric == "MONOCHROME1", tuple(flags))


def read_shape(dataset: Dataset) -> str:
    """Presentation LUT shape, upper case; "" where absent or unreadable."""
    try:
        return str(dataset.get("PresentationLUTShape") or "").strip().upper()
    except MemoryError:
        raise
    except Exception:
        return ""
