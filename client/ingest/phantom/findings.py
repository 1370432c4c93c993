"""Findings as changes of the physical maps: lung air filled with fluid, tissue added, air set free.

A :class:`Lesion` says what, where and how much. Filling is a fraction of the lung's air replaced by water, so
that superposition, silhouettes and contrast follow from the attenuation and not from painted grey.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from client.ingest.phantom.anatomy import LEFT, RIGHT, Frame
from client.ingest.phantom.canvas import Canvas, band, bezier, step

ZONES = ("upper", "middle", "lower")


@dataclass(frozen=True)
class Lesion:
    """One finding in one study.

    ``severity`` in [0, 1]; ``side`` -1 right, +1 left, 0 both or none; ``zone`` one of ZONES or ''; ``seed``
    fixes the shape, which stays while the severity changes from study to study.
    """

    finding: str
    severity: float
    side: int = 0
    zone: str = ""
    seed: int = 0


@dataclass
class Lungs:
    """Maps of one exposure that findings change in place; all float32 [H, W].

    Attributes:
        filled: fraction of the air that water has replaced, 0 .. 1.
        markings: strength of the vessels, usually 1.
        free: fraction of the lung that is free air (pneumothorax), 0 .. 1.
        added: extra soft tissue in units of length, displacing lung.
        lines: extra thin tissue lines (septa, pleura) in units of length.
    """

    filled: np.ndarray
    markings: np.ndarray
    free: np.ndarray
    added: np.ndarray
    lines: np.ndarray

    @classmethod
    def healthy(cls, canvas: Canvas) -> Lungs:
        return cls(canvas.zeros(), canvas.zeros() + 1, canvas.zeros(), canvas.zeros(), canvas.zeros())

    def part(self, box: tuple[slice, slice]) -> Lungs:
        """The same maps within a box; changes show in the whole."""
        return Lungs(self.filled[box], self.markings[box], self.free[box], self.added[box], self.lines[box])

    def fill(self, fraction: np.ndarray) -> None:
        """Fill a further fraction of what is still air."""
        self.filled += (1 - self.filled) * np.minimum(np.maximum(fraction, 0), 1)


def apply(canvas: Canvas, frame: Frame, lungs: Lungs, lesion: Lesion) -> None:
    """Draw one lesion into the maps. Cardiomegaly and mediastinal widening are contours, not maps: see
    film.py.
    """
    painter = _PAINTERS.get(lesion.finding)
    if painter is not None and lesion.severity > 0:
        painter(canvas, frame, lungs, lesion, np.random.default_rng(lesion.seed))


def _half(canvas: Canvas, side: int) -> np.ndarray:
    """1 on one side of the chest, with a soft step at the midline."""
    return step(canvas.x * np.float32(side * 40))


def effusion(canvas: Canvas, frame: Frame, lungs: Lungs, lesion: Lesion, rng: np.random.Generator) -> None:
    """Free fluid: a meniscus that climbs the chest wall; a veil over the whole side when the patient lies."""
    for side in (RIGHT, LEFT) if lesion.side == 0 else (lesion.side,):
        severity = lesion.severity * (1.0 if lesion.side else rng.uniform(0.7, 1.0))
        angle = frame.angle_y(side)
        if frame.pose.supine:
            depth = np.clip((canvas.y - np.float32(frame.apex_y)) / np.float32(angle - frame.apex_y), 0, 1)
            veil = (0.10 + 0.60 * severity) * depth**1.1
            lungs.fill(veil.astype(np.float32) * _half(canvas, side))
            severity *= 0.6
        climb = 0.16 + 0.95 * severity**1.1
        out = np.clip(side * canvas.x / np.float32(0.9), 0, 1.05)
        sag = 0.30 + 0.12 * severity  # the medial end of the meniscus lies lower
        level = angle - climb + sag * (1 - out**2.2)
        above = (canvas.y - level) * np.float32(1 / (0.018 + 0.03 * severity))
        lungs.fill(step(above) * _half(canvas, side) * np.float32(0.97))


def consolidation(canvas: Canvas, frame: Frame, lungs: Lungs, lesion: Lesion, rng: np.random.Generator) -> None:
    """Air spaces filled within a lobe: patchy at first, with air bronchograms, sharp where a fissure bounds
    it.
    """
    side, severity = lesion.side or RIGHT, lesion.severity
    low = frame.dome_y(side)
    centre_y = {"upper": -0.52, "middle": -0.02, "lower": low - 0.14}[lesion.zone or "lower"] + rng.uniform(-0.06, 0.06)
    centre_x = side * (rng.uniform(0.42, 0.60) - 0.06 * (lesion.zone == "upper"))
    sx = (0.20 + 0.15 * severity) * rng.uniform(0.85, 1.15)
    sy = (0.17 + 0.13 * severity) * rng.uniform(0.85, 1.15)
    box, canvas = canvas.part(centre_x, centre_y, 2.2 * max(sx, sy))
    lungs = lungs.part(box)
    cloud = canvas.cloud(rng, 0.17)
    shape = canvas.gaussian(centre_x, centre_y, sx, sy)
    mask = step((shape - 0.38 + 0.09 * cloud) * np.float32(12))
    if side == RIGHT and lesion.zone in ("upper", "middle"):
        # The horizontal fissure: upper lobe above, middle lobe below.
        fissure = -0.16 + 0.10 * np.clip(side * canvas.x - 0.3, 0, 1)
        way = 1 if lesion.zone == "upper" else -1
        mask *= step((fissure - canvas.y) * np.float32(way * 45))
    bronchi = _bronchi(canvas, frame, side, (centre_x, centre_y), rng)
    density = np.float32(0.46 + 0.46 * severity) * (1 + 0.10 * canvas.cloud(rng, 0.06))
    lungs.fill(mask * density * (1 - 0.45 * bronchi))
    lungs.markings *= 1 - 0.7 * mask


def _bronchi(
    canvas: Canvas, frame: Frame, side: int, towards: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Branching air columns from the hilum into the opacity."""
    mask = np.zeros((canvas.height, canvas.width), np.uint8)
    root = np.array([frame.front + side * 0.16, -0.12])
    aim = np.arctan2(towards[1] - root[1], towards[0] - root[0])
    far = float(np.hypot(towards[0] - root[0], towards[1] - root[1])) + 0.18
    for turn in (-0.42, -0.14, 0.14, 0.42):
        a = aim + turn + rng.normal(0, 0.06)
        bend = a + rng.normal(0, 0.25)
        tip = root + far * np.array([np.cos(a), np.sin(a)])
        middle = root + 0.5 * far * np.array([np.cos(bend), np.sin(bend)])
        line = bezier(tuple(root), tuple(middle), tuple(tip), n=8)
        canvas.fill_into(mask, band(line, np.linspace(0.030, 0.010, 8)), 255)
    return mask.astype(np.float32) * np.float32(1 / 255)


def edema(canvas: Canvas, frame: Frame, lungs: Lungs, lesion: Lesion, rng: np.random.Generator) -> None:
    """Fluid in the interstitium, then in the air spaces: hazy hila on both sides, septal lines, broad
    vessels.
    """
    severity = lesion.severity
    cloud = canvas.cloud(rng, 0.12)
    fine = canvas.cloud(rng, 0.035)
    haze = canvas.zeros()
    for side in (RIGHT, LEFT):
        x = frame.front + side * 0.36
        haze += rng.uniform(0.85, 1.1) * canvas.gaussian(x, 0.02, 0.22 + 0.10 * severity, 0.30 + 0.10 * severity)
    basal = step((canvas.y - np.float32(0.15)) * 6)
    amount = severity * (0.55 * haze + 0.16 * basal) * (1 + 0.30 * cloud) + 0.10 * severity * np.maximum(fine, 0)
    lungs.fill(amount.astype(np.float32))
    lungs.markings *= np.float32(1 + 0.7 * severity)
    septa = np.zeros((canvas.height, canvas.width), np.uint8)
    lines = []
    for side in (RIGHT, LEFT):
        heights = np.arange(-0.05, frame.angle_y(side) - 0.1, 0.055)
        for y, wall in zip(heights, frame.wall(heights) - 0.015):
            if rng.random() < 0.35 + 0.5 * severity:
                end = (side * (wall - rng.uniform(0.07, 0.14)), y + rng.normal(0, 0.012))
                lines.append(((side * wall, y), end))
    canvas.stroke_into(septa, np.array(lines).reshape(-1, 2, 2), 0.013, 255)
    lungs.lines += septa.astype(np.float32) * np.float32((0.04 + 0.05 * severity) / 255)


def pneumothorax(canvas: Canvas, frame: Frame, lungs: Lungs, lesion: Lesion, rng: np.random.Generator) -> None:
    """Air between chest wall and lung: no markings beyond a thin pleural line, widest at the apex when
    upright.
    """
    side, severity = lesion.side or RIGHT, lesion.severity
    bottom = frame.angle_y(side) - 0.05
    ys = np.linspace(frame.apex_y, bottom, 40)
    down = (ys - frame.apex_y) / (bottom - frame.apex_y)
    gap = (0.10 + 0.42 * severity) * (1 - down) ** (1.6 - 1.2 * severity) + 0.03 * severity
    gap = gap * (1 + 0.06 * np.sin(7 * down + rng.uniform(0, 6)))
    lung_top = frame.apex_y + 0.10 + 0.40 * severity
    # The lung keeps its shape and sinks from the apex: its wall, lowered and moved in.
    lowered = np.interp(
        ys,
        ys,
        frame.wall(
            np.clip(
                frame.apex_y + (ys - lung_top) * (bottom - frame.apex_y) / (bottom - lung_top),
                frame.apex_y,
                None,
            )
        ),
    )
    edge = np.where(ys > lung_top, np.maximum(lowered - gap, 0.0), 0.0)
    line = np.stack([side * edge, ys], axis=1)[ys > lung_top - 1e-6]
    line = np.concatenate([[[side * 0.06, lung_top + 0.01]], line])
    lung = np.concatenate([line, [[side * 0.0, bottom], [side * 0.0, lung_top]]])
    inside = canvas.fill(lung)
    beyond = (1 - inside) * _half(canvas, side) * (canvas.y < np.float32(bottom))
    lungs.free = np.maximum(lungs.free, beyond)
    lungs.markings *= 1 - beyond
    lungs.fill(inside * _half(canvas, side) * np.float32(0.06 + 0.32 * severity))
    pleura = np.zeros((canvas.height, canvas.width), np.uint8)
    canvas.stroke_into(pleura, [line], 0.014, 255)
    lungs.lines += pleura.astype(np.float32) * np.float32(0.11 / 255)


def lesion_mass(canvas: Canvas, frame: Frame, lungs: Lungs, lesion: Lesion, rng: np.random.Generator) -> None:
    """A rounded nodule or mass, slightly lobulated."""
    side = lesion.side or RIGHT
    radius = 0.075 + 0.155 * lesion.severity
    y = {"upper": -0.55, "middle": -0.08, "lower": 0.28}[lesion.zone or "upper"] + rng.uniform(-0.10, 0.10)
    low, high = 0.30, float(frame.wall(y)) - 0.10
    x = side * rng.uniform(low, max(low + 0.05, high))
    for _ in range(3):
        r = radius * rng.uniform(0.75, 1.0)
        cx, cy = x + rng.normal(0, 0.22) * radius, y + rng.normal(0, 0.22) * radius
        box, thickness = canvas.ellipsoid(cx, cy, r * rng.uniform(0.95, 1.15), r, rng.uniform(0, 3), power=0.6)
        view = lungs.added[box]
        np.maximum(view, thickness * np.float32(2.0 * radius + 0.10), out=view)


def atelectasis(canvas: Canvas, frame: Frame, lungs: Lungs, lesion: Lesion, rng: np.random.Generator) -> None:
    """Plate-like bands above a raised diaphragm (the frame raises it through ``volume_loss``)."""
    side = lesion.side or LEFT
    bands = np.zeros((canvas.height, canvas.width), np.uint8)
    for k in range(1 + int(2.5 * lesion.severity)):
        y = frame.dome_y(side) - 0.09 - 0.10 * k + rng.normal(0, 0.015)
        x = rng.uniform(0.25, 0.42)
        span = rng.uniform(0.28, 0.45)
        line = bezier((x, y), (x + span / 2, y - 0.05), (x + span, y + rng.normal(0.02, 0.04)))
        canvas.stroke_into(bands, [line * np.array([side, 1.0])], 0.032 + 0.03 * lesion.severity, 255)
    soft = canvas.blur(bands.astype(np.float32) * np.float32(1 / 255), 0.012)
    lungs.fill(soft * np.float32(0.45 + 0.45 * lesion.severity))
    base = canvas.gaussian(side * 0.5, frame.dome_y(side), 0.3, 0.12)
    lungs.fill(base * np.float32(0.15 + 0.40 * lesion.severity))


_PAINTERS = {
    "Pleural Effusion": effusion,
    "Consolidation": consolidation,
    "Edema": edema,
    "Pneumothorax": pneumothorax,
    "Lung Lesion": lesion_mass,
    "Atelectasis": atelectasis,
}
