"""Bones of a frontal film as a map of mineral thickness."""

from __future__ import annotations

import numpy as np

from client.ingest.phantom.anatomy import LEFT, RIGHT, Frame
from client.ingest.phantom.canvas import Canvas, band, bell, bezier, beziers

_RIBS = 10
_BONY = 7  # ribs whose anterior part is seen; the lower ones end in cartilage


def skeleton(canvas: Canvas, frame: Frame) -> np.ndarray:
    """float32 [H, W]: mineral thickness in arbitrary units, about 0.8 for the spine."""
    bone = _spine(canvas, frame)
    masks = [np.zeros((canvas.height, canvas.width), np.uint8) for _ in range(3)]
    back, front, girdle = masks
    both = [ribs(frame, side) for side in (RIGHT, LEFT)]
    posterior, anterior = (np.concatenate(parts) for parts in zip(*both))
    _tubes(canvas, back, posterior, 0.080, rim=200, core=140)
    _tubes(canvas, front, anterior, 0.086, rim=140, core=104)
    for side in (RIGHT, LEFT):
        _clavicle(canvas, girdle, frame, side)
        _shoulder(canvas, girdle, frame, side)
    for mask in masks:
        bone += mask.astype(np.float32) * np.float32(1 / 255)
    bone *= np.float32(frame.anatomy.bone)
    return bone


def ribs(frame: Frame, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Centre lines of one side from the top: posterior parts [10, 12, 2] and anterior ones [7, 12, 2]."""
    a = frame.anatomy
    k = np.arange(_RIBS)
    top = frame.apex_y + 0.02 + a.rib_pitch * (k + 0.3 * a.rib_phase)
    tilt = a.rib_tilt - 0.03 * frame.pose.inspiration + 0.012 * k
    wall_y = top + tilt * (0.75 + 0.05 * k)
    reach = frame.wall(wall_y) + 0.02
    middle = frame.midline(top)
    posterior = np.stack(
        [
            np.stack([side * 0.10 + middle, side * (0.10 + 0.35 * reach), side * reach, side * reach], axis=1),
            np.stack([top + 0.03, top - 0.10 - 0.05 * tilt, top + 0.15 * tilt, wall_y], axis=1),
        ],
        axis=2,
    )
    drop = tilt * 1.05 + 0.10
    end = frame.front + side * (0.34 + 0.035 * k)
    anterior = np.stack(
        [
            np.stack([side * reach, side * (reach + 0.01), side * (0.62 * reach + 0.12), end], axis=1),
            np.stack([wall_y, wall_y + 0.55 * drop, wall_y + drop, wall_y + 0.98 * drop], axis=1),
        ],
        axis=2,
    )
    return beziers(posterior, 12), beziers(anterior[:_BONY], 12)


def _tubes(canvas: Canvas, mask: np.ndarray, lines: np.ndarray, width: float, rim: int, core: int) -> None:
    """Cortical tubes: denser at their two edges. Every other one at a time, as neighbours may touch."""
    parts = ((width, rim), (width * 0.62, core))
    if width * canvas.scale < 3.5:  # too small to tell edge from core
        parts = ((width, round(0.38 * rim + 0.62 * core)),)
    for across, level in parts:
        polygons = band(lines, across)
        for first in (0, 1):
            canvas.fill_each(mask, polygons[first::2], level)


def _spine(canvas: Canvas, frame: Frame) -> np.ndarray:
    """Vertebral column with end plates, discs, pedicles and spinous processes."""
    bone = canvas.zeros()
    near = np.abs(canvas.x[0]) < 0.3
    y = canvas.y[:, 0]
    pitch = frame.anatomy.rib_pitch * 1.02
    phase = (y - frame.apex_y) / pitch + 0.3 * frame.anatomy.rib_phase
    saw = (np.abs(phase - np.floor(phase) - 0.5) * 2).astype(np.float32)  # 0 in a vertebra, 1 in the disc
    body = 0.72 + 0.22 * bell((saw - 0.78) / 0.07) - 0.22 * bell((saw - 1.0) / 0.07)
    half = 0.112 + 0.02 * np.clip(y, -1, 1) - 0.008 * (1 - saw)
    dx = np.abs(canvas.x[:, near] - frame.midline(y)[:, None].astype(np.float32))
    edge = np.clip((half[:, None].astype(np.float32) - dx) * np.float32(canvas.scale) + 0.5, 0, 1)
    pedicle = bell((dx - np.float32(0.065)) * np.float32(1 / 0.013)) * bell(saw / 0.21)[:, None]
    process = bell(dx * np.float32(1 / 0.014)) * bell((saw - 0.5) / 0.21)[:, None]
    column = np.float32(0.75) * body[:, None] + np.float32(0.25) * pedicle + np.float32(0.2) * process
    bone[:, near] = edge * column
    return bone


def _clavicle(canvas: Canvas, mask: np.ndarray, frame: Frame, side: int) -> None:
    rise = 0.16 + 0.10 * (1 - frame.pose.arms) - (0.10 if frame.pose.ap else 0.0)
    y = frame.apex_y + 0.27 - (0.10 if frame.pose.ap else 0.0) - 0.06 * frame.pose.inspiration
    x = frame.front + side * 0.13
    line = bezier((x, y + 0.05), (x + side * 0.35, y + 0.06), (x + side * 0.55, y - rise), (x + side * 0.98, y - rise))
    width = np.interp(np.linspace(0, 1, len(line)), [0, 0.15, 0.5, 1], [0.12, 0.085, 0.075, 0.095])
    canvas.fill_into(mask, band(line, width), 150)
    canvas.fill_into(mask, band(line, width * 0.6), 105)


def _shoulder(canvas: Canvas, mask: np.ndarray, frame: Frame, side: int) -> None:
    """Scapula and head of the humerus; with the arms down the blade lies over the lung."""
    inner = 0.98 - 0.28 * frame.pose.arms
    top = frame.apex_y + 0.18
    blade = np.array(
        [
            (inner + 0.32, top - 0.02),
            (inner + 0.05, top - 0.02),
            (inner, top + 0.12),
            (inner + 0.06, top + 0.75),
            (inner + 0.13, top + 0.80),
            (inner + 0.26, top + 0.30),
        ]
    ) * np.array([side, 1.0])
    canvas.fill_into(mask, blade, 34)
    border = np.array([(inner + 0.26, top + 0.25), (inner + 0.16, top + 0.60), (inner + 0.10, top + 0.79)])
    canvas.stroke_into(mask, [border * np.array([side, 1.0])], 0.04, 95)
    t = np.linspace(0, 2 * np.pi, 24)
    head = np.stack([side * (1.36 + 0.17 * np.cos(t)), top - 0.02 + 0.17 * np.sin(t)], axis=1)
    canvas.fill_into(mask, head, 150)
    canvas.fill_into(mask, band(bezier((side * 1.42, top), (side * 1.52, top + 0.5), (side * 1.56, 1.6)), 0.19), 150)
