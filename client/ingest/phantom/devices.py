"""Lines, tubes and a pacemaker: metal and plastic that distract and give away who is ill."""

from __future__ import annotations

import numpy as np

from client.ingest.phantom.anatomy import LEFT, RIGHT, Frame
from client.ingest.phantom.canvas import Canvas, bezier

KINDS = ("central line", "endotracheal tube", "nasogastric tube", "pacemaker", "chest tube", "leads")


def devices(canvas: Canvas, frame: Frame, kinds: tuple[str, ...], seed: int, side: int = RIGHT) -> np.ndarray:
    """float32 [H, W]: metal in units of optical density. ``side`` is where a chest tube goes in."""
    mask = np.zeros((canvas.height, canvas.width), np.uint8)
    for k, kind in enumerate(KINDS):
        if kind in kinds:
            _DRAW[kind](canvas, frame, mask, np.random.default_rng([seed, k]), side)
    return mask.astype(np.float32) * np.float32(0.9 / 255)


def _central_line(canvas: Canvas, frame: Frame, mask: np.ndarray, rng: np.random.Generator, _: int) -> None:
    m, top = frame.front, frame.apex_y
    entry = (m - 0.24 - rng.uniform(0, 0.05), top - 0.25)
    if rng.random() < 0.4:
        entry = (m - 0.75, top + 0.30)
    line = bezier(entry, (m - 0.16, top + 0.15), (m - 0.15, top + 0.5), (m - 0.13, rng.uniform(-0.25, -0.05)), n=20)
    canvas.stroke_into(mask, [line], 0.018, 120)


def _endotracheal(canvas: Canvas, frame: Frame, mask: np.ndarray, rng: np.random.Generator, _: int) -> None:
    m, top = frame.front, frame.apex_y
    tip = rng.uniform(-0.62, -0.48)
    line = bezier((m + rng.normal(0, 0.02), top - 0.6), (m, top), (m + rng.normal(0, 0.01), tip))
    canvas.stroke_into(mask, [line + np.array([0.03, 0])], 0.014, 150)
    canvas.stroke_into(mask, [line - np.array([0.03, 0])], 0.010, 70)


def _nasogastric(canvas: Canvas, frame: Frame, mask: np.ndarray, rng: np.random.Generator, _: int) -> None:
    m = 0.5 * frame.front
    low = frame.dome_y(LEFT)
    line = bezier((m + 0.01, frame.apex_y - 0.6), (m + 0.05, -0.4), (m - 0.02, low - 0.1), (m + 0.12, low + 0.1), n=24)
    tail = bezier((m + 0.12, low + 0.1), (m + 0.3, low + 0.22), (m + 0.45, low + 0.32 + rng.uniform(-0.1, 0.1)))
    canvas.stroke_into(mask, [line, tail], 0.020, 130)


def _pacemaker(canvas: Canvas, frame: Frame, mask: np.ndarray, rng: np.random.Generator, _: int) -> None:
    side = LEFT if rng.random() < 0.85 else RIGHT
    cx, cy = side * rng.uniform(0.68, 0.78), frame.apex_y + rng.uniform(0.42, 0.52)
    t = np.linspace(0, 2 * np.pi, 28)
    can = np.stack([0.14 * np.sign(np.cos(t)) * np.abs(np.cos(t)) ** 0.6, 0.115 * np.sin(t)], axis=1) + np.array(
        [cx, cy]
    )
    canvas.fill_into(mask, can, 235)
    m, low = frame.front, frame.dome_y(LEFT)
    for end in ((m + 0.10, low - 0.08), (m - 0.15, -0.02))[: int(rng.integers(1, 3))]:
        line = bezier((cx, cy - 0.08), (m - 0.30, frame.apex_y + 0.2), (m - 0.28, -0.2), end, n=24)
        canvas.stroke_into(mask, [line], 0.016, 190)


def _chest_tube(canvas: Canvas, frame: Frame, mask: np.ndarray, rng: np.random.Generator, side: int) -> None:
    wall = float(frame.wall(0.2))
    line = bezier(
        (side * (wall + 0.3), rng.uniform(0.3, 0.5)),
        (side * (wall - 0.2), 0.15),
        (side * 0.55, -0.2),
        (side * rng.uniform(0.3, 0.45), -0.7),
        n=20,
    )
    canvas.stroke_into(mask, [line], 0.045, 60)
    canvas.stroke_into(mask, [line], 0.014, 170)


def _leads(canvas: Canvas, frame: Frame, mask: np.ndarray, rng: np.random.Generator, _: int) -> None:
    for x, y in ((-0.62, -0.62), (0.66, -0.58), (0.72, 0.42))[: int(rng.integers(2, 4))]:
        at = np.array([x, y]) + rng.normal(0, 0.06, 2)
        t = np.linspace(0, 2 * np.pi, 16)
        canvas.fill_into(mask, at + 0.035 * np.stack([np.cos(t), np.sin(t)], 1), 190)
        out = bezier(tuple(at), tuple(at + rng.normal(0, 0.2, 2)), (np.sign(x) * 0.6 + rng.normal(0, 0.2), 1.9), n=20)
        canvas.stroke_into(mask, [out], 0.012, 130)


_DRAW = {
    "central line": _central_line,
    "endotracheal tube": _endotracheal,
    "nasogastric tube": _nasogastric,
    "pacemaker": _pacemaker,
    "chest tube": _chest_tube,
    "leads": _leads,
}
