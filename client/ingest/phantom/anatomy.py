"""Who is imaged and how they stand: individual anatomy, the pose of one exposure, and the contours both
imply.

All lengths are thorax units (see canvas.py). The patient's right side is at negative x. ``side`` is -1 for
the patient's right and +1 for the left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from client.ingest.phantom.canvas import bezier

RIGHT, LEFT = -1, 1


@dataclass(frozen=True)
class Anatomy:
    """What stays the same in one person from study to study."""

    female: bool
    age: int
    habitus: float  # 0 thin .. 1 obese
    height: float  # lung height, about 1
    apex: float  # width of the apices, about 1
    heart: float  # heart width over the usual one; disease comes on top
    heart_tilt: float  # radians; a lying heart is broad and low
    aorta: float  # 0 slim .. 1 elongated, grows with age
    domes: tuple[float, float]  # rise of the right and left diaphragm
    rib_tilt: float
    rib_pitch: float  # distance of neighbouring ribs
    rib_phase: float
    bone: float  # density, falls with age
    hila: float
    scoliosis: float
    breast: float
    seed: int  # vessels and other texture that stays


@dataclass(frozen=True)
class Pose:
    """What differs from exposure to exposure."""

    ap: bool
    supine: bool
    inspiration: float  # about 0; -1 poor .. +1 deep
    yaw: float  # sideways shift of a structure one unit nearer to the detector
    tilt: float  # radians in the image plane
    shift: tuple[float, float]
    zoom: float
    arms: float  # 0 shoulders rolled out of the lungs .. 1 scapulae over them


def draw_anatomy(rng: np.random.Generator, female: bool, age: int, habitus: float) -> Anatomy:
    """A random person; ``habitus`` is the mean of the site's population."""
    n = rng.standard_normal
    old = np.clip((age - 45) / 40, -0.5, 1.0)
    return Anatomy(
        female=female,
        age=age,
        habitus=float(np.clip(habitus + 0.22 * n(), 0, 1)),
        height=float(np.clip(1.0 + 0.06 * n(), 0.86, 1.14)),
        apex=float(np.clip(1.0 + 0.06 * n(), 0.85, 1.15)),
        heart=float(np.clip(1.0 + 0.05 * n() + 0.02 * old, 0.88, 1.12)),
        heart_tilt=float(np.clip(0.62 + 0.12 * n(), 0.35, 0.9)),
        aorta=float(np.clip(0.3 + 0.35 * old + 0.18 * n(), 0, 1)),
        domes=(float(0.06 * n()), float(0.06 * n())),
        rib_tilt=float(np.clip(0.30 + 0.07 * n(), 0.14, 0.46)),
        rib_pitch=float(np.clip(0.175 + 0.010 * n(), 0.15, 0.2)),
        rib_phase=float(rng.uniform(0, 1)),
        bone=float(np.clip(1.0 - 0.25 * old + 0.12 * n(), 0.55, 1.3)),
        hila=float(np.clip(1.0 + 0.15 * n(), 0.65, 1.4)),
        scoliosis=float(0.035 * n()),
        breast=float(np.clip(0.5 + 0.3 * n(), 0.1, 1.2)) if female else 0.0,
        seed=int(rng.integers(2**31)),
    )


def draw_pose(rng: np.random.Generator, ap: bool, sloppiness: float) -> Pose:
    """A random exposure; ``sloppiness`` (0 .. 1) widens every error of positioning."""
    n = rng.standard_normal
    loose = (0.6 + 0.8 * sloppiness) * (1.4 if ap else 1.0)
    supine = bool(ap and rng.random() < 0.6)
    return Pose(
        ap=ap,
        supine=supine,
        inspiration=float(np.clip((-0.45 if ap else 0.15) + 0.4 * n(), -1.2, 1.0)),
        yaw=float(0.035 * loose * n()),
        tilt=float(0.022 * loose * n()),
        shift=(float(0.035 * loose * n()), float(0.05 * loose * n())),
        zoom=float(np.exp(0.035 * loose * n())),
        arms=float(np.clip((0.75 if ap else 0.2) + 0.2 * n(), 0, 1)),
    )


@dataclass(frozen=True)
class Frame:
    """Contours of one person in one pose; findings shift them through ``mediastinal_shift`` and
    ``volume_loss``.
    """

    anatomy: Anatomy
    pose: Pose
    mediastinal_shift: float = 0.0
    volume_loss: tuple[float, float] = (0.0, 0.0)  # raises the right, left dome
    overinflation: float = 0.0

    @property
    def apex_y(self) -> float:
        return -0.98 * self.anatomy.height

    def dome_y(self, side: int) -> float:
        """Height of the highest point of a diaphragm; the right one stands higher."""
        a, k = self.anatomy, 0 if side < 0 else 1
        base = (0.50, 0.57)[k] * a.height + a.domes[k]
        return base + 0.13 * self.pose.inspiration - 0.05 * a.habitus - self.volume_loss[k] + 0.05 * self.overinflation

    def angle_y(self, side: int) -> float:
        """Height of the costophrenic angle."""
        return self.dome_y(side) + 0.27 + 0.05 * self.pose.inspiration

    def wall(self, y: np.ndarray | float) -> np.ndarray:
        """Half width of the inner chest wall at height ``y``."""
        up = np.clip((0.30 - np.asarray(y, float)) / (0.30 - self.apex_y), 0, 1)
        down = np.clip(np.asarray(y, float) - 0.3, 0, 2)
        return 0.97 * (1 - up ** (2.5 * self.anatomy.apex)) ** 0.62 - 0.03 * down

    def midline(self, y: np.ndarray | float) -> np.ndarray:
        """x of the spine's middle: curved with scoliosis, displaced when the patient is turned."""
        return self.anatomy.scoliosis * np.sin(np.pi * (np.asarray(y, float) + 0.2)) - 0.5 * self.pose.yaw

    @property
    def front(self) -> float:
        """x shift of what lies in front (heart, sternum, clavicles) through turning."""
        return 0.9 * self.pose.yaw + self.mediastinal_shift

    def dome(self, side: int, n: int = 24) -> np.ndarray:
        """Lower lung border [n, 2] from the midline to the costophrenic angle."""
        top, angle = self.dome_y(side), self.angle_y(side)
        edge = float(self.wall(angle))
        medial = bezier((0.0, top + 0.10), (0.12, top - 0.01), (0.42, top - 0.01), n=n // 2)
        lateral = bezier((0.42, top - 0.01), (0.78, top), (edge - 0.10, angle - 0.16), (edge, angle), n=n - n // 2 + 1)
        curve = np.concatenate([medial, lateral[1:]])
        curve[:, 0] *= side
        return curve

    def lung(self, side: int, n: int = 32) -> np.ndarray:
        """Lung field [N, 2] of one side, closed along the midline."""
        dome = self.dome(side)
        ys = np.linspace(dome[-1, 1], self.apex_y, n) if n > 1 else np.array([self.apex_y])
        wall = np.stack([side * self.wall(ys), ys], axis=1)
        return np.concatenate([dome, wall[1:]])

    def heart(self, severity: float) -> tuple[tuple[float, ...], ...]:
        """Ellipsoids (cx, cy, a, b, angle) of left and right heart; ``severity`` is cardiomegaly."""
        a = self.anatomy
        # A near anterior object is magnified on AP films; poor inspiration lays the heart across.
        grow = a.heart * (1.07 if self.pose.ap else 1.0) * (1 + 0.02 * a.habitus)
        lying = 0.10 * max(0.0, -self.pose.inspiration)
        base = 0.5 * (self.dome_y(RIGHT) + self.dome_y(LEFT))
        long = 0.42 * grow * (1 + 0.46 * severity)
        short = 0.29 * grow * (1 + 0.42 * severity)
        tilt = a.heart_tilt - lying - 0.18 * severity
        left = (self.front + 0.16 + 0.13 * severity, base - 0.23 - 0.02 * severity, long, short, tilt)
        right = (
            self.front - 0.06 - 0.03 * severity,
            base - 0.27,
            0.22 * grow * (1 + 0.32 * severity),
            0.30 * grow * (1 + 0.2 * severity),
            -0.1,
        )
        return left, right

    def cardiothoracic_ratio(self, severity: float) -> float:
        """Heart width over inner thoracic width, of the contours (not measured on pixels)."""
        left, right = self.heart(severity)
        reach = [(cx, np.hypot(a * np.cos(angle), b * np.sin(angle))) for cx, _, a, b, angle in (left, right)]
        high, low = max(c + r for c, r in reach), min(c - r for c, r in reach)
        y = np.linspace(-0.2, 0.6, 9)
        return float((high - low) / (2 * self.wall(y).max()))
