"""Drawing surface in thorax units.

One unit is half the inner width of the rib cage (about 14 cm). The origin lies on the midline, half way
between lung apex and diaphragm; x grows to the patient's left (the viewer's right), y grows downwards.
"""

from __future__ import annotations

from functools import lru_cache
from math import comb

import cv2
import numpy as np

_SHIFT = 4  # fractional bits of cv2's sub-pixel coordinates


class Canvas:
    """Maps thorax units to pixels and draws anti-aliased masks.

    Attributes:
        x: float32 [1, W], y: float32 [H, 1]: thorax coordinates of the pixel centres.
        scale: pixels per unit.
    """

    def __init__(self, height: int, width: int, units_wide: float, centre_y: float = 0.0):
        self.height, self.width = height, width
        self.scale = width / units_wide
        self._centre = np.array([width / 2 - 0.5, height / 2 - 0.5 - centre_y * self.scale])
        self.x = ((np.arange(width) - self._centre[0]) / self.scale).astype(np.float32)[None, :]
        self.y = ((np.arange(height) - self._centre[1]) / self.scale).astype(np.float32)[:, None]

    def part(self, cx: float, cy: float, reach: float) -> tuple[tuple[slice, slice], Canvas]:
        """A square of half side ``reach`` around a point: its box, and a canvas of just that box."""
        rows, columns = self.box(cx, cy, reach)
        part = object.__new__(Canvas)
        part.x, part.y, part.scale = self.x[:, columns], self.y[rows], self.scale
        part.height, part.width = len(part.y), part.x.shape[1]
        part._centre = self._centre - (columns.start, rows.start)
        return (rows, columns), part

    def zeros(self) -> np.ndarray:
        """float32 [H, W] of zeros."""
        return np.zeros((self.height, self.width), np.float32)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Thorax coordinates [..., 2] to cv2's fixed-point pixels, int32."""
        return np.rint((points * self.scale + self._centre) * (1 << _SHIFT)).astype(np.int32)

    def fill(self, *polygons: np.ndarray, level: int = 255) -> np.ndarray:
        """Union of polygons [N, 2] as an anti-aliased float32 mask in [0, level / 255]."""
        mask = np.zeros((self.height, self.width), np.uint8)
        for polygon in polygons:
            self.fill_into(mask, polygon, level)
        return mask.astype(np.float32) * np.float32(1 / 255)

    def fill_into(self, mask: np.ndarray, polygon: np.ndarray, level: int) -> None:
        """Paint one polygon [N, 2] into a uint8 mask."""
        cv2.fillPoly(mask, [self.pixels(polygon)], level, cv2.LINE_AA, _SHIFT)

    def fill_each(self, mask: np.ndarray, polygons: np.ndarray, level: int) -> None:
        """Paint polygons [M, N, 2] into a uint8 mask; no two may overlap: the overlap would stay empty."""
        cv2.fillPoly(mask, list(self.pixels(polygons)), level, cv2.LINE_AA, _SHIFT)

    def stroke_into(self, mask: np.ndarray, lines: np.ndarray | list[np.ndarray], width: float, level: int) -> None:
        """Paint open lines, an array [M, N, 2] or a list of [N, 2], of ``width`` units into a uint8 mask.

        Lines thinner than a pixel are drawn one pixel wide and fainter, so that a small image equals a large
        one scaled down.
        """
        pixels = width * self.scale
        level = int(np.clip(level * min(1.0, pixels), 1, 255))
        thickness = max(1, round(pixels))
        drawn = list(self.pixels(lines)) if isinstance(lines, np.ndarray) else [self.pixels(p) for p in lines]
        cv2.polylines(mask, drawn, False, level, thickness, cv2.LINE_AA, _SHIFT)

    def box(self, cx: float, cy: float, reach: float) -> tuple[slice, slice]:
        """Pixel slices (rows, columns) of a square of half side ``reach`` units, clipped to the canvas."""
        column, row = np.array([cx, cy]) * self.scale + self._centre
        r = reach * self.scale + 1
        top, left = max(0, int(row - r)), max(0, int(column - r))
        return slice(top, max(top, int(row + r) + 2)), slice(left, max(left, int(column + r) + 2))

    def ellipsoid(
        self, cx: float, cy: float, a: float, b: float, angle: float = 0.0, power: float = 0.5
    ) -> tuple[tuple[slice, slice], np.ndarray]:
        """Thickness of an ellipsoid seen from the front, 1 in its centre: ``(1 - q) ** power``.

        Returns the box it lies in and the float32 values of that box. ``angle`` in radians turns the long
        axis clockwise on the screen.
        """
        rows, columns = self.box(cx, cy, max(a, b))
        dx, dy = self.x[:, columns] - np.float32(cx), self.y[rows] - np.float32(cy)
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        q = ((dx * c + dy * s) * np.float32(1 / a)) ** 2 + ((dy * c - dx * s) * np.float32(1 / b)) ** 2
        inside = np.maximum(np.float32(1) - q, np.float32(0))
        if power == 0.25:
            return (rows, columns), np.sqrt(np.sqrt(inside))
        return (rows, columns), np.sqrt(inside) if power == 0.5 else inside ** np.float32(power)

    def gaussian(self, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
        """float32 [H, W] Gaussian of height 1."""
        return bell((self.x - np.float32(cx)) / np.float32(sx)) * bell((self.y - np.float32(cy)) / np.float32(sy))

    def blur(self, image: np.ndarray, sigma: float) -> np.ndarray:
        """Gaussian blur with ``sigma`` units; wide ones run on a reduced copy."""
        pixels = sigma * self.scale
        if pixels < 0.2:
            return image
        if pixels > 6:
            factor = pixels / 3
            small = (max(4, round(self.width / factor)), max(4, round(self.height / factor)))
            reduced = cv2.GaussianBlur(cv2.resize(image, small, interpolation=cv2.INTER_AREA), (0, 0), 3)
            return cv2.resize(reduced, (self.width, self.height), interpolation=cv2.INTER_LINEAR)
        return cv2.GaussianBlur(image, (0, 0), pixels)

    def cloud(self, rng: np.random.Generator, grain: float) -> np.ndarray:
        """Smooth random field, float32 [H, W], mean 0, about unit variance, with structures of ``grain``
        units.
        """
        rows = int(np.ceil(3.4 / grain)) + 3
        grid = rng.standard_normal((rows, rows), dtype=np.float32) * np.float32(1.4)
        # A fixed extent in units, so that the same draw looks the same at every size.
        per_pixel = 1 / (self.scale * grain)
        ox, oy = (1.7 / grain + 1) - self._centre * per_pixel
        return cv2.warpAffine(
            grid,
            np.array([[per_pixel, 0, ox], [0, per_pixel, oy]]),
            (self.width, self.height),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        )


def bell(z: np.ndarray) -> np.ndarray:
    """``exp(-z * z / 2)``, cut at 1e-9: subnormal numbers would slow every later operation many times."""
    return np.exp(np.maximum(np.float32(-0.5) * z * z, np.float32(-20)))


def step(z: np.ndarray) -> np.ndarray:
    """Logistic function, safe and without subnormal numbers."""
    return 1 / (1 + np.exp(np.clip(-z, np.float32(-20), np.float32(20))))


def band(line: np.ndarray, width: np.ndarray | float) -> np.ndarray:
    """Polygons [..., 2N, 2] around lines [..., N, 2]; ``width`` units across, one value or one per point."""
    step = np.empty_like(line)
    step[..., 1:-1, :] = line[..., 2:, :] - line[..., :-2, :]
    step[..., 0, :] = line[..., 1, :] - line[..., 0, :]
    step[..., -1, :] = line[..., -1, :] - line[..., -2, :]
    half = step[..., ::-1] * (-1.0, 1.0)
    half *= (np.asarray(width) / 2 / np.maximum(np.hypot(step[..., 0], step[..., 1]), 1e-9))[..., None]
    return np.concatenate([line + half, (line - half)[..., ::-1, :]], axis=-2)


@lru_cache(maxsize=64)
def _bernstein(degree: int, n: int) -> np.ndarray:
    t = np.linspace(0, 1, n)[:, None]
    k = np.arange(degree + 1)
    return np.array([comb(degree, i) for i in k]) * t**k * (1 - t) ** (degree - k)


def bezier(*points: tuple[float, float], n: int = 16) -> np.ndarray:
    """Curve [n, 2] from the first to the last of two to four control points."""
    return beziers(np.array(points), n)


def beziers(points: np.ndarray, n: int = 16) -> np.ndarray:
    """Curves [..., n, 2] from control points [..., P, 2]."""
    return _bernstein(points.shape[-2] - 1, n) @ points
