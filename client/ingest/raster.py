"""PNG or JPEG file -> stored pixels. Runs in worker processes: the files are not trusted.

Imports little, so that a worker starts fast.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from client.ingest.codes import Reason
from models.studies.resize import short_side_to

FORMATS = ("PNG", "JPEG")
GREY_SPREAD = 16
"""A pixel is coloured when red or blue is further than this from green; JPEG leaves smaller differences."""
GREY_SHARE = 0.001
WINDOW = (0.1, 99.9)
PREPROCESSING: dict[str, Any] = {
    "decoder": "pillow",
    "orientation": "exif",
    "resize": "area",
    "colour": {"spread": GREY_SPREAD, "share": GREY_SHARE, "grey": "luma"},
    "window_16_bit": {"low_percentile": WINDOW[0], "high_percentile": WINDOW[1]},
}
"""How this module makes pixels: goes into the store, which refuses to mix two ways."""

_ORIENTATION = 0x0112

warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the cap here is lower
cv2.setNumThreads(1)  # one worker a core


class Rejected(Exception):
    """The file cannot be taken; ``code`` says why."""

    def __init__(self, code: Reason) -> None:
        super().__init__(code.value)
        self.code = code


def serve(task: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray | None]:
    """Answer one task of the importer's pool.

    ``task``: path, hash_only, short_side, min_side, max_pixels, max_bytes. The answer holds the file's
    ``sha256`` and either ``shape`` (with the pixels beside it) or ``code``.
    """
    answer: dict[str, Any] = {}
    try:
        raw = read_bytes(task["path"], task["max_bytes"])
        answer["sha256"] = hashlib.sha256(raw).hexdigest()
        if task["hash_only"]:
            return answer, None
        pixels = decode_raster(raw, task["short_side"], task["min_side"], task["max_pixels"])
    except Rejected as rejected:
        return {**answer, "code": rejected.code.value}, None
    except MemoryError:
        return {**answer, "code": Reason.MEMORY_LIMIT.value}, None
    except Exception:  # one bad file never stops a batch
        return {**answer, "code": Reason.UNEXPECTED.value}, None
    return {**answer, "shape": pixels.shape}, pixels


def read_bytes(path: str, max_bytes: int) -> bytes:
    """The file's bytes.

    Raises:
        Rejected: missing_file, too_large or unreadable_image.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            raw = file.read(size) if size <= max_bytes else b""
    except FileNotFoundError:
        raise Rejected(Reason.MISSING_FILE) from None
    except OSError:
        raise Rejected(Reason.UNREADABLE_IMAGE) from None
    if size > max_bytes:
        raise Rejected(Reason.TOO_LARGE)
    return raw


def decode_raster(raw: bytes, short_side: int, min_side: int, max_pixels: int) -> np.ndarray:
    """uint8 [H, W] from the bytes of a PNG or JPEG: upright, grey, short side at most ``short_side``.

    The number of pixels is read from the header and checked before anything is decoded.

    Raises:
        Rejected: unreadable_image, too_large, too_small, not_grey or blank_image.
    """
    image = _open(raw, min_side, max_pixels)
    try:
        pixels = _grey(image)
    except (Rejected, MemoryError):
        raise
    except Exception:  # Pillow raises many kinds for a broken file
        raise Rejected(Reason.UNREADABLE_IMAGE) from None
    pixels = short_side_to(pixels, short_side)
    low, high, _, _ = cv2.minMaxLoc(pixels)
    if low == high:
        raise Rejected(Reason.BLANK_IMAGE)
    return np.ascontiguousarray(pixels)


def _open(raw: bytes, min_side: int, max_pixels: int) -> Image.Image:
    """The image, with its header read and nothing decoded."""
    try:
        image = Image.open(io.BytesIO(raw), formats=FORMATS)
    except Image.DecompressionBombError:  # Pillow's own cap
        raise Rejected(Reason.TOO_LARGE) from None
    except MemoryError:
        raise
    except Exception:
        raise Rejected(Reason.UNREADABLE_IMAGE) from None
    width, height = image.size
    if width * height > max_pixels:
        raise Rejected(Reason.TOO_LARGE)
    if min(width, height) < min_side:
        raise Rejected(Reason.TOO_SMALL)
    return image


def _grey(image: Image.Image) -> np.ndarray:
    """uint8 [H, W], upright."""
    image.load()
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "L":
        return np.asarray(image)
    if image.mode.startswith("I"):
        return _to_8_bit(np.asarray(image))
    if image.mode in ("RGB", "RGBA"):
        return _grey_of_channels(np.asarray(image))
    if image.mode in ("1", "P", "LA"):
        return _grey_of_channels(np.asarray(image.convert("RGBA")))
    raise Rejected(Reason.NOT_GREY)


def _grey_of_channels(channels: np.ndarray) -> np.ndarray:
    """Luma of an RGB or RGBA image whose channels agree but for few or small differences."""
    if channels.shape[2] == 4 and channels[..., 3].min() < 255:
        raise Rejected(Reason.NOT_GREY)  # what shows through is not in the file
    red, green, blue = cv2.split(channels)[:3]
    spread = cv2.max(cv2.absdiff(red, green), cv2.absdiff(blue, green))
    _, largest, _, _ = cv2.minMaxLoc(spread)
    if largest == 0:
        return green
    coloured = np.count_nonzero(spread > GREY_SPREAD) if largest > GREY_SPREAD else 0
    if coloured > GREY_SHARE * spread.size:
        raise Rejected(Reason.NOT_GREY)
    return cv2.cvtColor(channels, cv2.COLOR_RGBA2GRAY if channels.shape[2] == 4 else cv2.COLOR_RGB2GRAY)


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Linear window between two percentiles: 16-bit exports often use a few thousand of the 65,536 levels."""
    low, high = np.percentile(values, WINDOW)
    if high <= low:
        low, high = float(values.min()), float(values.max())
    if high <= low:
        raise Rejected(Reason.BLANK_IMAGE)
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
