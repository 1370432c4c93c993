"""From optical density to the picture a department shows: scatter, noise, blur, processing, borders,
marker.
"""

from __future__ import annotations

import cv2
import numpy as np

from client.ingest.phantom.canvas import Canvas
from client.ingest.phantom.style import Scanner

# Strokes of the marker letters in a unit square.
_LETTERS = {
    "L": (((0, 0), (0, 1), (1, 1)),),
    "R": (((0, 1), (0, 0), (0.7, 0), (1, 0.15), (1, 0.38), (0.7, 0.52), (0, 0.52)), ((0.5, 0.52), (1, 1))),
}


def expose(canvas: Canvas, density: np.ndarray, scanner: Scanner, rng: np.random.Generator) -> np.ndarray:
    """Detector signal on a logarithmic scale: float32 [H, W], bright where the patient is dense.

    Quantum noise is that of a Poisson count on the physical detector, so that a smaller picture is less
    noisy.
    """
    light = np.exp(-density)
    if scanner.scatter:
        ambient = canvas.blur(light, 0.35) * np.float32(scanner.scatter)
        ambient += np.float32(scanner.scatter * 0.02)
        light += ambient
    light = canvas.blur(light, scanner.blur)
    # Counts per pixel: proportional to its area and to the dose.
    counts = light * np.float32(scanner.dose * 2.2e8 / canvas.scale**2)
    noise = rng.standard_normal(light.shape, dtype=np.float32)
    light *= 1 + np.clip(noise / np.sqrt(np.maximum(counts, 1)), -0.9, 9)
    return -np.log(np.maximum(light, np.float32(1e-6)))


def develop(canvas: Canvas, signal: np.ndarray, scanner: Scanner, rng: np.random.Generator) -> np.ndarray:
    """Display values in [0, 1], float32 [H, W]: automatic window, unsharp mask, S-shaped curve."""
    h, w = signal.shape
    sample = signal[h // 8 : h - h // 6 : max(1, h // 64), w // 8 : w - w // 8 : max(1, w // 64)]
    low, high = np.percentile(sample, scanner.window)
    span = max(float(high - low), 1e-3)
    # Some room below: the air beside the heart is not yet pure black.
    low, high = low + span * rng.normal(-0.10, 0.03), high + span * rng.normal(0.02, 0.03)
    if scanner.sharpen:
        signal = signal + np.float32(scanner.sharpen) * (signal - canvas.blur(signal, 0.05))
    value = np.clip((signal - np.float32(low)) * np.float32(1 / max(high - low, 1e-3)), 0, 1)
    gamma = scanner.gamma * float(np.exp(rng.normal(0, 0.06)))
    table = np.linspace(0, 1, 1024) ** gamma
    curve = table + scanner.toe * (table * table * (3 - 2 * table) - table)
    return curve.astype(np.float32)[(value * np.float32(1023)).astype(np.int16)]


def frame_up(
    canvas: Canvas, value: np.ndarray, scanner: Scanner, side_marker: str, rng: np.random.Generator
) -> np.ndarray:
    """Display values in [0, 1] with collimation borders and side marker ('L', 'R' or ''), float32 [H, W]."""
    h, w = value.shape
    if side_marker:
        mask = np.zeros((h, w), np.uint8)
        at = np.array([(0.93 if side_marker == "L" else 0.03) * w, (0.08 + rng.uniform(0, 0.12)) * h])
        strokes = [np.array(s) * (0.6, 1) * 0.03 * w + at for s in _LETTERS[side_marker]]
        fixed = [np.rint(stroke * 16).astype(np.int32) for stroke in strokes]
        cv2.polylines(mask, fixed, False, 245, max(1, round(w / 180)), cv2.LINE_AA, 4)
        value = np.maximum(value, mask * np.float32(1 / 255))
    if rng.random() < scanner.collimation:
        edges = rng.uniform(0.0, 0.045, 4) * (rng.random(4) < 0.7)
        top, bottom, left, right = (edges * (h, h, w, w)).astype(int)
        shade = np.float32(rng.integers(0, 12) / 255)
        value[:top], value[h - bottom :] = shade, shade
        value[:, :left], value[:, w - right :] = shade, shade
    return value
