"""A crude lateral exposure: front of the patient at negative x."""

from __future__ import annotations

import numpy as np

from client.ingest.phantom.anatomy import LEFT, RIGHT, Frame
from client.ingest.phantom.canvas import Canvas, band, bezier, step
from client.ingest.phantom.devices import devices
from client.ingest.phantom.film import LUNG, WATER
from client.ingest.phantom.findings import Lesion

_WIDE = 1.7  # side-to-side length of both lungs, units


def lateral(
    canvas: Canvas,
    frame: Frame,
    lesions: tuple[Lesion, ...],
    kinds: tuple[str, ...],
    bone: float,
    device_seed: int,
) -> np.ndarray:
    """Optical density, float32 [H, W], of a left lateral film."""
    a = frame.anatomy
    severity = {x.finding: x for x in lesions}
    top, low = frame.apex_y, 0.5 * (frame.dome_y(RIGHT) + frame.dome_y(LEFT))
    deep = 0.62 + 0.10 * a.habitus
    y = canvas.y[:, 0]
    half = deep * (1.02 + 0.12 * a.habitus) * np.clip((y - top + 0.75) / 0.7, 0.35, 1) ** 0.5
    q = canvas.x / half[:, None].astype(np.float32)
    tissue = np.maximum(1 - q * q, 0) ** np.float32(0.35) * np.float32(1.75 + 0.7 * a.habitus)
    # Arms raised in front of the apices, shoulders behind them.
    tissue += canvas.gaussian(-0.05, top - 0.1, 0.5, 0.22) * np.float32(0.8)
    air = canvas.fill(_outline(frame, top, low)) * np.float32(_WIDE)
    air = canvas.blur(air, 0.03)
    heart = severity["Cardiomegaly"].severity if "Cardiomegaly" in severity else 0.0
    size = a.heart * (1 + 0.35 * heart)
    box, thick = canvas.ellipsoid(-0.20 + 0.06 * heart, low - 0.22, 0.30 * size, 0.34 * size, 0.5, power=0.4)
    air[box] -= np.minimum(air[box], thick * np.float32(0.85))
    air -= np.minimum(air, canvas.gaussian(-0.02, -0.15, 0.12, 0.22) * np.float32(0.5))
    filled = _filled(canvas, frame, severity, low)
    tissue -= air * np.float32(1 - LUNG) * (1 - filled)
    trachea = band(bezier((-0.02, top - 0.5), (0.0, top), (0.04, -0.35)), 0.11)
    tissue -= canvas.blur(canvas.fill(trachea), 0.015) * np.float32(0.15)
    np.maximum(tissue, np.float32(0.02), out=tissue)
    density = tissue * np.float32(WATER * 0.85) + _bones(canvas, frame, top, deep) * np.float32(bone * a.bone)
    if "pacemaker" in kinds:
        density += devices(canvas, frame, ("pacemaker",), device_seed)
    return density


def _outline(frame: Frame, top: float, low: float) -> np.ndarray:
    front = bezier((-0.12, top), (-0.62, top + 0.25), (-0.60, low - 0.3), (-0.55, low + 0.05))
    floor = bezier((-0.55, low + 0.05), (-0.2, low - 0.12), (0.2, low), (0.50, low + 0.34))
    back = bezier((0.50, low + 0.34), (0.66, 0.1), (0.55, top + 0.25), (0.12, top))
    return np.concatenate([front, floor, back])


def _filled(canvas: Canvas, frame: Frame, severity: dict[str, Lesion], low: float) -> np.ndarray:
    filled = canvas.zeros()
    if "Pleural Effusion" in severity:
        s = severity["Pleural Effusion"].severity
        level = low + 0.30 - 0.55 * s - 0.10 * np.clip(canvas.x, 0, 1) * (1 - s)
        filled += 0.75 * step((canvas.y - level) * 40)
    for name, reach, strength in (("Consolidation", 0.20, 0.45), ("Lung Lesion", 0.09, 0.35)):
        if name in severity:
            lesion = severity[name]
            rng = np.random.default_rng(lesion.seed)
            y = {"upper": -0.5, "middle": 0.0, "lower": low - 0.05}[lesion.zone]
            x = {"upper": 0.0, "middle": -0.2, "lower": 0.25}[lesion.zone] + rng.normal(0, 0.06)
            size = reach * (0.6 + 0.7 * lesion.severity)
            filled += strength * lesion.severity * canvas.gaussian(x, y, size, size)
    if "Edema" in severity:
        filled += 0.4 * severity["Edema"].severity * canvas.gaussian(0.0, 0.0, 0.3, 0.4)
    return np.clip(filled, 0, 1)


def _bones(canvas: Canvas, frame: Frame, top: float, deep: float) -> np.ndarray:
    mask = np.zeros((canvas.height, canvas.width), np.uint8)
    pitch = frame.anatomy.rib_pitch
    for k in range(14):
        y = top - 0.05 + pitch * k
        x = 0.42 + 0.12 * np.sin((y + 0.9) * 1.4)
        corner = np.array([(-0.10, -0.42), (0.10, -0.42), (0.10, 0.42), (-0.10, 0.42)]) * (1, pitch)
        canvas.fill_into(mask, corner + np.array([x, y]), 150)
        canvas.fill_into(mask, corner * 0.78 + np.array([x, y]), 95)
    sternum = band(bezier((-0.30, top + 0.28), (-0.62, 0.0), (-0.66, 0.35)), 0.06)
    canvas.fill_into(mask, sternum, 120)
    bone = mask.astype(np.float32) * np.float32(1.4 / 255)
    ribs = np.zeros_like(mask)
    for k in range(9):
        y = top + 0.08 + pitch * k
        line = bezier((0.52, y), (0.45, y - 0.05), (0.0, y + 0.2), (-0.5, y + 0.42))
        canvas.stroke_into(ribs, [line], 0.06, 45)
    return bone + ribs.astype(np.float32) * np.float32(1 / 255)
