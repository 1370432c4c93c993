"""Where the picture is, and at which size it is kept: black-border crop, orientation, square pixels, short
side."""

from __future__ import annotations

import math
from typing import Any, Literal

import cv2
import numpy as np
from pydicom.dataset import Dataset

from client.ingest.codes import Reason
from client.ingest.refusal import Refusal
from models.config import config

_EXACT_SIDE = 640  # images up to here are searched for borders pixel by pixel
_MOST_ANISOTROPIC = 4.0


@config
class Framing:
    """Crop, orientation and size of the stored image."""

    crop: bool = True  # cut black borders off
    crop_keeps_at_least: float = 0.5  # a crop that keeps less of the area is implausible: nothing is cut
    orientation: Literal["flag", "apply"] = "flag"  # what to do with a mirrored or turned PatientOrientation
    square_pixels: bool = True  # resample pixels that are not square
    short_side: int = 512  # pixels; the other side follows, fraction cut off
    min_side: int = 128  # smallest side of the original that is accepted
    max_aspect: float = 3.0  # longest side / shortest side

    def check(self) -> None:
        if not 0 <= self.crop_keeps_at_least <= 1:
            raise ValueError(f"crop_keeps_at_least: {self.crop_keeps_at_least} is not a share between 0 and 1")
        if not 16 <= self.short_side <= 4096:
            raise ValueError(f"short_side: {self.short_side} is not allowed; give 16 to 4096 pixels")
        if self.min_side < 1:
            raise ValueError(f"min_side: {self.min_side} is not allowed; give at least 1 pixel")
        if not 1 <= self.max_aspect <= 16:
            raise ValueError(f"max_aspect: {self.max_aspect} is not allowed; give 1 to 16")


Box = tuple[int, int, int, int]
"""top, left, bottom, right; the last two excluded."""


def content_box(image: np.ndarray) -> Box | None:
    """Bounding box of the largest connected region above 0 of an 8-bit image; None if all is black.

    Up to 640 pixels on the short side the region is found exactly. Larger images are searched on every
    k-th pixel and the box is then grown to the exact edge: the result differs only for threads thinner than
    k pixels.
    """
    height, width = image.shape
    step = max(1, math.ceil(min(height, width) / _EXACT_SIDE))
    mask = (image[::step, ::step] > 0).view(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return None
    left, top, w, h = cv2.boundingRect(max(contours, key=cv2.contourArea))
    if step == 1:
        return top, left, top + h, left + w
    top, left, bottom, right = top * step, left * step, (top + h - 1) * step + 1, (left + w - 1) * step + 1
    # Between the outermost sample inside and the first one outside lie at most step - 1 rows or columns.
    top -= _reach(image[max(0, top - step + 1) : top, left:right][::-1])
    bottom += _reach(image[bottom : bottom + step - 1, left:right])
    left -= _reach(image[top:bottom, max(0, left - step + 1) : left].T[::-1])
    right += _reach(image[top:bottom, right : right + step - 1].T)
    return top, left, bottom, right


def _reach(rows: np.ndarray) -> int:
    """How many leading rows hold anything above 0, without a gap."""
    filled = rows.any(axis=1)
    return len(filled) if filled.all() else int(np.argmin(filled))


def crop(image: np.ndarray, framing: Framing) -> tuple[np.ndarray, dict[str, Any]]:
    """Cut black borders off; the record holds the box and the share of the area that it keeps."""
    box = content_box(image) if framing.crop else None
    if box is None:
        return image, {"crop": "off" if not framing.crop else "nothing"}
    top, left, bottom, right = box
    share = (bottom - top) * (right - left) / image.size
    record = {"crop_box": list(box), "crop_share": round(share, 4)}
    if share < framing.crop_keeps_at_least:
        return image, {"crop": "implausible", **record}
    return image[top:bottom, left:right], {"crop": "applied", **record}


def turn_of(orientation: str) -> str:
    """How a frontal image must be turned so that columns run to the patient's left and rows to the feet.

    ``orientation`` is PatientOrientation as text ("L\\F"). Answers "none", "unknown" (absent, oblique,
    lateral), or one of "mirror", "flip", "turn180", "transpose", "turn90", "turn270", "transverse".
    """
    parts = orientation.upper().split("\\")
    if len(parts) != 2:
        return "unknown"
    return _TURNS.get((parts[0][:1], parts[1][:1]), "unknown")


_TURNS = {
    ("L", "F"): "none",
    ("R", "F"): "mirror",
    ("L", "H"): "flip",
    ("R", "H"): "turn180",
    ("F", "L"): "transpose",
    ("F", "R"): "turn90",
    ("H", "L"): "turn270",
    ("H", "R"): "transverse",
}


def turn(image: np.ndarray, how: str) -> np.ndarray:
    """Apply an answer of :func:`turn_of`; quarter turns are clockwise."""
    if how == "mirror":
        return image[:, ::-1]
    if how == "flip":
        return image[::-1]
    if how == "turn180":
        return image[::-1, ::-1]
    if how == "transpose":
        return image.T
    if how == "transverse":
        return image[::-1, ::-1].T
    if how in ("turn90", "turn270"):
        return np.rot90(image, k=-1 if how == "turn90" else 1)
    return image


def pixel_aspect(dataset: Dataset) -> tuple[float, list[str]]:
    """Height of a pixel over its width, from the spacing or the aspect ratio; 1 where absent or
    implausible."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        try:
            value = dataset.get(keyword)
            if value is None or isinstance(value, str) or len(value) != 2:
                continue
            down, across = float(value[0]), float(value[1])
        except MemoryError:
            raise
        except Exception:
            continue
        if not (math.isfinite(down) and math.isfinite(across) and down > 0 and across > 0):
            continue
        ratio = down / across
        if 1 / _MOST_ANISOTROPIC <= ratio <= _MOST_ANISOTROPIC:
            return ratio, []
        return 1.0, ["pixel_aspect_ignored"]
    return 1.0, []


def resize(image: np.ndarray, aspect: float, framing: Framing) -> tuple[np.ndarray, dict[str, Any]]:
    """Short side to its target in square pixels, by area interpolation (linear where it must grow).

    Non-square pixels are resampled in the same step, along the axis of the larger pixels only in effect: one
    interpolation blurs less than two.

    Raises:
        Refusal: TOO_SMALL, IMPLAUSIBLE_SHAPE.
    """
    height, width = image.shape
    if min(height, width) < framing.min_side:
        raise Refusal(Reason.TOO_SMALL)
    tall, wide = height * (aspect if framing.square_pixels else 1.0), float(width)
    if max(tall, wide) / min(tall, wide) > framing.max_aspect:
        raise Refusal(Reason.IMPLAUSIBLE_SHAPE)
    short = framing.short_side
    # In integers where it can be: 512 * (1000 / 840) must not become 609.4999.
    if tall <= wide:
        target = (short, int(wide * short / tall))
    else:
        target = (int(tall * short / wide), short)
    record: dict[str, Any] = {"scale": round(short / min(tall, wide), 4), "pixel_aspect": round(aspect, 4)}
    if target == image.shape:
        return np.ascontiguousarray(image), record
    grows = target[0] * target[1] > height * width
    how = cv2.INTER_LINEAR if grows else cv2.INTER_AREA
    return cv2.resize(np.ascontiguousarray(image), target[::-1], interpolation=how), record
