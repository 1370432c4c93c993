"""One image to one square: the geometry of every training and evaluation view."""

from __future__ import annotations

import cv2
import numpy as np


def resample(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [height, width]: area average where both sides shrink, else linear."""
    if pixels.shape == (height, width):
        return pixels
    shrinks = height <= pixels.shape[0] and width <= pixels.shape[1]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def short_side_to(pixels: np.ndarray, short_side: int) -> np.ndarray:
    """Shrink to ``short_side`` pixels, aspect kept; a smaller image stays as it is."""
    height, width = pixels.shape
    scale = short_side / min(height, width)
    if scale >= 1:
        return pixels
    return resample(pixels, max(short_side, round(height * scale)), max(short_side, round(width * scale)))


def fit_into(pixels: np.ndarray, out: np.ndarray, fit: str) -> None:
    """Write ``pixels`` (uint8 [H, W]) into ``out`` (uint8 [S, S]).

    ``crop``: short side to S, the middle square. ``pad``: long side to S, centred on black. ``squash``: both
    sides to S.
    """
    size = out.shape[0]
    height, width = pixels.shape
    if fit == "squash":
        out[:] = resample(pixels, size, size)
    elif fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        out[:] = resample(pixels[top : top + side, left : left + side], size, size)
    else:
        scale = size / max(height, width)
        h, w = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = (size - h) // 2, (size - w) // 2
        out[:] = 0
        out[top : top + h, left : left + w] = resample(pixels, h, w)
