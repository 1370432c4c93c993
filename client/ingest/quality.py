"""Does the image look like an upright chest radiograph, black lungs, white spine? Simple checks, each with
a score.

A small drawing of a chest, two dark lungs beside a bright mediastinum over a bright abdomen, in a few
positions and sizes, is correlated with the image's grey *ranks* at 32 x 32 pixels. Ranks make the window
irrelevant; a correlation changes sign when black and white are exchanged, and falls when the image is
turned. Whatever fits no drawing and is not symmetric either is probably no frontal chest. Uniform borders
are trimmed first; the trimming treats black and white alike. The drawing comes from anatomy, not from
images; only the thresholds were calibrated on real ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from client.ingest.codes import Reason
from client.ingest.margin import text_length
from client.ingest.refusal import Refusal
from models.config import config

_SIDE = 32
_COARSE = 64

Check = Literal["inverted", "sideways", "upside_down", "not_chest"]

_REASONS: dict[str, Reason] = {
    "inverted": Reason.INVERTED,
    "sideways": Reason.SIDEWAYS,
    "upside_down": Reason.SIDEWAYS,
    "not_chest": Reason.NOT_CHEST,
}


@config
class QualityConfig:
    """Thresholds of the checks, and which of them refuse instead of flag.

    ``inverted``, ``sideways`` and ``upside_down`` are how much better the image must fit when it is
    inverted or turned; ``chest`` is the least fit plus half the symmetry (-1.5..1.5); ``contrast`` the
    least grey range; ``text`` the letters in one line of the margin from which on text counts.
    """

    inverted: float = 0.1
    sideways: float = 0.05
    upside_down: float = 0.1
    chest: float = 0.5
    contrast: float = 12.0  # grey levels between the 2nd and 98th percentile; less is blank
    text: int = 5
    text_action: Literal["refuse", "flag", "ignore"] = "refuse"
    refuse: tuple[Check, ...] = ()

    def check(self) -> None:
        if self.text < 1:
            raise ValueError(f"text: {self.text} is not allowed; give at least 1 letter")
        if not 0 <= self.contrast < 255:
            raise ValueError(f"contrast: {self.contrast} is not allowed; give 0 to 255 grey levels")


@dataclass(frozen=True)
class Quality:
    """Every score, and the checks that struck, as ``name:score``."""

    scores: dict[str, float]
    flags: tuple[str, ...]


def assess(image: np.ndarray, view: str, config: QualityConfig) -> Quality:
    """Check one 8-bit image of a declared view (one of ``client.ingest.gate.VIEWS``).

    The drawing is of a frontal chest: for a declared lateral the scores are worked out and stored, but flag
    nothing.

    Raises:
        Refusal: BLANK_IMAGE, BURNED_IN_TEXT, and the reasons of the checks named in ``config.refuse``.
    """
    small = coarse(image)
    scores = {"contrast": contrast(small)}
    if scores["contrast"] < config.contrast:
        raise Refusal(Reason.BLANK_IMAGE, "contrast")
    scores |= chest_scores(small)
    struck = _strikes(scores, config) if view != "LATERAL" else []
    for name in struck:
        if name in config.refuse:
            raise Refusal(_REASONS[name])
    flags = [f"{name}:{scores['chest' if name == 'not_chest' else name]:.2f}" for name in struck]
    if config.text_action != "ignore":
        scores["text"] = float(text_length(image))
        if scores["text"] >= config.text:
            if config.text_action == "refuse":
                raise Refusal(Reason.BURNED_IN_TEXT)
            flags.append(f"text:{scores['text']:.0f}")
    return Quality({k: round(v, 4) for k, v in scores.items()}, tuple(flags))


def _strikes(scores: dict[str, float], config: QualityConfig) -> list[str]:
    """The checks that strike. An inverted image often fits turned drawings better too, so several may."""
    found = [name for name in ("inverted", "sideways", "upside_down") if scores[name] > getattr(config, name)]
    if not found and scores["chest"] < config.chest:
        found = ["not_chest"]
    return found


def coarse(image: np.ndarray) -> np.ndarray:
    """The image at 64 x 64, float32: what all checks but the text look at. Noise averages out, structure
    stays.
    """
    return cv2.resize(image, (_COARSE, _COARSE), interpolation=cv2.INTER_AREA).astype(np.float32)


def contrast(small: np.ndarray) -> float:
    """Grey levels between the 2nd and 98th percentile of a :func:`coarse` image."""
    low, high = np.percentile(small, (2, 98))
    return float(high - low)


def chest_scores(small: np.ndarray) -> dict[str, float]:
    """Scores of a :func:`coarse` image, larger meaning more so: ``inverted``, ``sideways``,
    ``upside_down``, ``chest``.
    """
    trimmed = trim(small)
    ranks = _ranks(trimmed if min(trimmed.shape) >= _COARSE // 3 else small)
    fits, inverted = _BANK.fit(np.stack([np.rot90(ranks, quarter) for quarter in range(4)]))
    upright = float(fits[0])
    return {
        "inverted": float(inverted[0]) - upright,
        "sideways": float(max(fits[1], fits[3])) - upright,
        "upside_down": float(fits[2]) - upright,
        "chest": upright + symmetry(ranks) / 2,
    }


def trim(image: np.ndarray) -> np.ndarray:
    """Cut uniform borders, of any one grey, off a small float image; at most 20 lines a side and pass."""
    tolerance = 0.06 * float(np.ptp(image))
    for _ in range(2):
        top, bottom = _uniform_lines(image, tolerance), _uniform_lines(image[::-1], tolerance)
        left, right = _uniform_lines(image.T, tolerance), _uniform_lines(image.T[::-1], tolerance)
        height, width = image.shape
        if top + bottom >= height - 1 or left + right >= width - 1:
            return image
        image = image[top : height - bottom, left : width - right]
    return image


def _uniform_lines(image: np.ndarray, tolerance: float) -> int:
    """How many leading rows are uniform and of the same grey."""
    lines = np.sort(image[:20], axis=1)
    low, middle, high = (lines[:, int(share * (lines.shape[1] - 1))] for share in (0.1, 0.5, 0.9))
    uniform = (high - low <= tolerance) & (np.abs(np.diff(middle, prepend=middle[0])) <= tolerance)
    return len(uniform) if uniform.all() else int(np.argmin(uniform))


def symmetry(ranks: np.ndarray) -> float:
    """Correlation of an image with its mirror image, -1..1, the axis within 4 columns of the middle."""
    best = -1.0
    for offset in range(-4, 5):
        part = ranks[2:-2, max(0, offset) : _SIDE + min(0, offset)]
        part = part - part.mean()
        best = max(best, float((part * part[:, ::-1]).sum() / ((part**2).sum() + 1e-9)))
    return best


def _ranks(image: np.ndarray) -> np.ndarray:
    """Grey ranks 0..1 at 32 x 32; equal greys share their mean rank, so that flat areas stay flat."""
    small = cv2.resize(np.ascontiguousarray(image), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), 0.7)
    _, place, counts = np.unique(small.ravel(), return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts + 1) / 2
    return (mean_rank[place] / (_SIDE * _SIDE - 1)).reshape(_SIDE, _SIDE)


class _Bank:
    """Drawings of a chest in several positions and sizes, and their weighted correlation with an image."""

    def __init__(self) -> None:
        drawn = [
            _draw(cx, cy, apart, wide, tall)
            for cx in (0.45, 0.5, 0.55)
            for cy in (0.38, 0.45, 0.52)
            for apart, wide in ((0.17, 0.12), (0.2, 0.15), (0.23, 0.17))
            for tall in (0.22, 0.29, 0.36)
        ]
        self._weights = np.stack([w.ravel() for _, w in drawn]).astype(np.float32)
        self._mass = self._weights.sum(axis=1, keepdims=True)
        self._drawings = np.stack([d.ravel() for d, _ in drawn]).astype(np.float32) * self._weights

    def fit(self, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(best correlation, best correlation when inverted) of each of n images (n, 32, 32)."""
        x = ranks.reshape(len(ranks), -1).T.astype(np.float32)
        mean = self._weights @ x / self._mass
        spread = self._weights @ (x * x) - self._mass * mean**2
        r = (self._drawings @ x) / np.sqrt(np.maximum(spread, 1e-6))
        return r.max(axis=0), -r.min(axis=0)


def _draw(cx: float, cy: float, apart: float, wide: float, tall: float) -> tuple[np.ndarray, np.ndarray]:
    """(drawing, weights) with lungs around (cx -+ apart, cy) of half axes (wide, tall), in shares of the
    image.

    Weights leave out what varies: everything above the lungs, and the arms or background beside them.
    """
    y, x = (np.mgrid[0:_SIDE, 0:_SIDE] + 0.5) / _SIDE
    drawing = np.zeros((_SIDE, _SIDE))
    for side in (-1, 1):
        dy = y - cy
        dx = x - (cx + side * apart) - side * 0.12 * dy  # lungs widen towards the diaphragm
        lung = np.clip(1.6 * (1 - np.hypot(dx / wide, dy / tall)), 0, 1)
        drawing = np.minimum(drawing, -lung)
    middle = np.exp(-(((x - cx) / 0.09) ** 2)) * (np.abs(y - cy) < 1.25 * tall)
    drawing += 0.6 * middle * (drawing > -0.3)
    abdomen = (y > cy + 0.95 * tall) & (drawing > -0.1)
    drawing = np.where(abdomen, np.maximum(drawing, 0.6), drawing)
    weights = np.where(np.abs(x - cx) > apart + 1.7 * wide, 0.15, 1.0) * (y >= cy - 1.05 * tall)
    drawing -= (weights * drawing).sum() / weights.sum()
    return drawing / np.sqrt((weights * drawing**2).sum()), weights


_BANK = _Bank()
