"""A frontal exposure: thickness maps to optical density, by the line integral along each ray.

Optical density here is ``-ln(transmitted / incident)``. Materials superpose by adding their thickness times
their attenuation; scattered radiation, added to the transmitted one, flattens the dense regions as in
reality.
"""

from __future__ import annotations

import numpy as np

from client.ingest.phantom.anatomy import LEFT, RIGHT, Frame
from client.ingest.phantom.canvas import Canvas, band, bell, bezier
from client.ingest.phantom.devices import devices
from client.ingest.phantom.findings import Lesion, Lungs, apply
from client.ingest.phantom.skeleton import skeleton
from client.ingest.phantom.vessels import tree

WATER = 2.3  # attenuation of soft tissue per unit of length (about 0.16 / cm)
LUNG = 0.26  # density of aerated lung over water
DEPTH = 1.05  # front-to-back length of the lung in its middle, units


def frontal(
    canvas: Canvas,
    frame: Frame,
    lesions: tuple[Lesion, ...],
    kinds: tuple[str, ...],
    bone: float,
    device_seed: int,
) -> np.ndarray:
    """Optical density, float32 [H, W], of a frontal film; ``bone`` weighs mineral against water (beam
    quality).
    """
    severity = {x.finding: x.severity for x in lesions}
    lungs = Lungs.healthy(canvas)
    for lesion in lesions:
        apply(canvas, frame, lungs, lesion)
    air = _air(canvas, frame)
    air *= 1 - np.float32(0.93) * _centre(canvas, frame, severity)
    tissue = body(canvas, frame)
    vessels = _vessels(canvas, frame) * lungs.markings
    lost = np.float32(1 - LUNG) * (1 - lungs.filled)
    lost += np.float32(LUNG) * lungs.free  # free air holds no lung tissue at all
    relative = np.minimum(air * np.float32(2), 1)
    solid = (vessels + lungs.added + lungs.lines) * relative * (1 - lungs.filled)
    tissue -= np.maximum(air * lost - solid, 0)
    tissue -= _airways(canvas, frame) + _stomach(canvas, frame)
    np.maximum(tissue, np.float32(0.02), out=tissue)
    density = tissue * np.float32(WATER) + skeleton(canvas, frame) * np.float32(bone)
    if kinds:
        side = next((x.side for x in lesions if x.finding == "Pneumothorax"), RIGHT)
        density += devices(canvas, frame, kinds, device_seed, side)
    return density


def body(canvas: Canvas, frame: Frame) -> np.ndarray:
    """Front-to-back thickness of the patient, float32 [H, W]: torso, shoulders, neck, arms, breasts."""
    a = frame.anatomy
    y = canvas.y[:, 0]
    top = frame.apex_y
    torso = 1.16 + 0.26 * a.habitus
    slope = np.clip((y - (top - 0.52)) / 0.46, 0, 1)
    half = (
        0.36 + 0.06 * a.habitus + (torso + 0.40 - 0.36) * slope**1.6 * (1 - 0.26 * np.clip((y - top - 0.2) / 0.5, 0, 1))
    )
    thick = (1.24 + 0.62 * a.habitus) * (0.62 + 0.38 * np.clip((y - top + 0.45) / 0.75, 0, 1))
    thick = thick * (1 + 0.10 * np.clip(y, 0, 1))
    q = canvas.x / half[:, None].astype(np.float32)
    depth = np.maximum(1 - q * q, 0) ** np.float32(0.42) * thick[:, None].astype(np.float32)
    if a.breast:
        for side in (RIGHT, LEFT):
            box, b = canvas.ellipsoid(side * 0.54, 0.36 + 0.1 * a.habitus, 0.42, 0.38, power=0.8)
            depth[box] += b * np.float32(a.breast * (0.12 + 0.20 * a.habitus))
    return depth


def _air(canvas: Canvas, frame: Frame) -> np.ndarray:
    """Front-to-back length of lung along each ray, as if there were no mediastinum."""
    y = canvas.y[:, 0]
    wall = np.maximum(frame.wall(y), 1e-3).astype(np.float32)[:, None]
    q = canvas.x / wall
    side = np.sqrt(np.maximum(1 - q * q, 0))
    rise = np.clip((y - frame.apex_y) / 0.9, 0, 1) ** 0.5
    mask = canvas.fill(frame.lung(RIGHT), frame.lung(LEFT))
    # The lung dips behind the dome, so that it thins out towards its lower border.
    thin = canvas.blur(mask, 0.07)
    mask *= np.float32(0.45) + np.float32(0.55) * np.clip(thin * 2 - 1, 0, 1)
    return mask * side * (DEPTH * (0.55 + 0.45 * rise)).astype(np.float32)[:, None]


def _centre(canvas: Canvas, frame: Frame, severity: dict[str, float]) -> np.ndarray:
    """Share of each ray's lung that heart, great vessels and hila take, 0 .. 1."""
    wide = severity.get("Enlarged Cardiomediastinum", 0.0)
    a, m, top = frame.anatomy, frame.front, frame.apex_y
    spine = frame.midline(canvas.y[:, 0])[:, None].astype(np.float32)
    core = bell(((canvas.x - spine) * np.float32(1 / 0.14)) ** 2)
    upper = np.array(
        [
            (m - 0.13 - 0.10 * wide, top - 0.1),
            (m - 0.17 - 0.14 * wide, -0.5),
            (m - 0.19 - 0.06 * wide, -0.1),
            (m - 0.1, 0.3),
            (m + 0.12, 0.3),
            (m + 0.25 + 0.05 * wide, -0.10),
            (m + 0.23 + 0.12 * wide, -0.33),
            (m + 0.21 + 0.16 * wide, -0.55),
            (m + 0.12 + 0.10 * wide, top - 0.1),
        ]
    )
    share = np.maximum(core, canvas.blur(canvas.fill(upper), 0.022))
    knob = (
        m + 0.15 + 0.04 * a.aorta + 0.08 * wide,
        -0.46 - 0.06 * a.aorta,
        0.105 + 0.035 * a.aorta,
        0.13 + 0.03 * a.aorta,
        0.0,
    )
    trunk = (m + 0.17, -0.24, 0.11, 0.12, 0.3)
    for e in (*frame.heart(severity.get("Cardiomegaly", 0.0)), knob, trunk):
        box, thickness = canvas.ellipsoid(*e, power=0.25)
        view = share[box]
        np.maximum(view, thickness * np.float32(0.95), out=view)
    if a.aorta > 0.15:
        ys = np.linspace(-0.42, 0.45, 12)
        line = np.stack([frame.midline(ys) + 0.11 + 0.10 * a.aorta * np.sin((ys + 0.42) * 2.6), ys], axis=1)
        share += (1 - share) * canvas.blur(canvas.fill(band(line, 0.20)), 0.01) * np.float32(0.35)
    for side, y in ((RIGHT, -0.10), (LEFT, -0.17)):
        for dy, weight in ((-0.05, 0.45), (0.10, 0.5)):
            box, blob = canvas.ellipsoid(
                m + side * 0.235, y + dy, 0.085 * a.hila, 0.16 * a.hila, -side * 0.35, power=0.6
            )
            share[box] += (1 - share[box]) * blob * np.float32(weight)
    # Epicardial fat softens the angle between heart and diaphragm.
    for side, reach in ((RIGHT, 0.26), (LEFT, 0.50)):
        blob = canvas.gaussian(m + side * reach, frame.dome_y(side) + 0.04, 0.10 + 0.05 * a.habitus, 0.09)
        share += (1 - share) * blob * np.float32(0.5 * (0.4 + a.habitus))
    return np.minimum(share, 1)


def _vessels(canvas: Canvas, frame: Frame) -> np.ndarray:
    """Thickness of the vessel tree along each ray, in units of length."""
    mask = np.zeros((canvas.height, canvas.width), np.uint8)
    for width, lines in reversed(tree(frame.anatomy.seed)):
        canvas.stroke_into(mask, _into_lung(frame, lines), width, int(min(255, 40 + 6000 * width)))
    return canvas.blur(mask.astype(np.float32) * np.float32(0.20 / 255), 0.006)


def _into_lung(frame: Frame, lines: np.ndarray) -> np.ndarray:
    """Stretch lines [M, N, 2] of the vessel tree to this person's lungs."""
    hilum = -0.14
    right = lines[:, -1:, 0] < 0
    down = np.where(right, frame.dome_y(RIGHT), frame.dome_y(LEFT)) + 0.12 - hilum
    y = hilum + np.where(lines[..., 1] < 0, hilum - frame.apex_y, down) * lines[..., 1]
    x = frame.front * (1 - np.abs(lines[..., 0])) + np.where(right, -0.17, 0.17) + 0.80 * lines[..., 0]
    return np.stack([x, y], axis=-1)


def _airways(canvas: Canvas, frame: Frame) -> np.ndarray:
    """Trachea and main bronchi: air in the mediastinum, units of length."""
    m, top = frame.front * 0.7, frame.apex_y
    fork = (m + 0.02, -0.36)
    trachea = bezier((m, top - 0.55), (m, top), (m - 0.03 * frame.anatomy.aorta, -0.6), fork)
    right = bezier(fork, (m - 0.10, -0.27), (m - 0.20, -0.12))
    left = bezier(fork, (m + 0.12, -0.29), (m + 0.26, -0.18))
    mask = canvas.fill(band(trachea, 0.115), band(right, 0.095), band(left, 0.08))
    return canvas.blur(mask, 0.03) * np.float32(0.12)


def _stomach(canvas: Canvas, frame: Frame) -> np.ndarray:
    """Gas under the left dome, units of length: flat below when the patient stands."""
    rng = np.random.default_rng(frame.anatomy.seed + 1)
    out = canvas.zeros()
    size = rng.uniform(0.3, 1.2)
    y = frame.dome_y(LEFT) + 0.13
    box, gas = canvas.ellipsoid(0.40 + rng.normal(0, 0.05), y, 0.15 + 0.08 * size, 0.08 + 0.05 * size, power=0.5)
    if not frame.pose.supine:
        gas = gas * np.clip((np.float32(y + 0.05) - canvas.y[box[0]]) * np.float32(canvas.scale * 0.5) + 0.5, 0, 1)
    out[box] += gas * np.float32(0.30 * size)
    for _ in range(3):
        box, gas = canvas.ellipsoid(rng.uniform(-0.2, 0.75), y + rng.uniform(0.2, 0.5), rng.uniform(0.05, 0.13), 0.07)
        out[box] += gas * np.float32(0.12)
    return out
