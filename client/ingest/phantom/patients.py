"""Phantom patients: a stream of rendered studies with their truth, the same for the same seed on every
machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from client.ingest.phantom.anatomy import Anatomy, Frame, draw_anatomy, draw_pose
from client.ingest.phantom.canvas import Canvas
from client.ingest.phantom.course import Visit, draw_course, labels
from client.ingest.phantom.film import frontal
from client.ingest.phantom.findings import Lesion
from client.ingest.phantom.lateral import lateral
from client.ingest.phantom.scanner import develop, expose, frame_up
from client.ingest.phantom.style import Style


@dataclass(frozen=True)
class PhantomStudy:
    """One film with all that is true about it.

    Attributes:
        patient: invented identifier, 'P0001' upwards, unique within a style.
        study: rank within the patient, from 0. image: rank within the study (1 is a lateral beside its
            frontal).
        day: days since the patient's first study.
        view: 'PA', 'AP' or 'LATERAL'. sex: 'F' or 'M'. age: years at the study.
        labels: the 14 CheXpert classes to ``models.studies.schema.Label`` codes.
        severity: findings that are present, to (0, 1].
        progression: against the previous study, for findings present then or now: improved, stable, worsened.
        change: against the previous study, for all drawn findings: absent, new, worsened, stable, improved,
            resolved. Both are empty in the first study.
        lesions: where each finding sits. devices: what is on or in the patient.
        pixels: uint8 [H, W], 0 black, dense tissue bright.
    """

    patient: str
    study: int
    image: int
    day: int
    view: str
    sex: str
    age: int
    labels: dict[str, int]
    severity: dict[str, float]
    progression: dict[str, str]
    change: dict[str, str]
    lesions: tuple[Lesion, ...]
    devices: tuple[str, ...]
    pixels: np.ndarray


def grey(value: np.ndarray) -> np.ndarray:
    """Display values in [0, 1] as uint8."""
    return (value * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def patients(style: Style, n: int, seed: int, size: int, first: int = 0) -> Iterator[PhantomStudy]:
    """All films of patients ``first`` .. ``first + n - 1`` of a site, patient by patient, oldest study first.

    ``size`` is the short side in pixels. Patient number k is the same whatever ``n`` and ``first`` are, and
    the same person in every size.
    """
    for number in range(first, first + n):
        yield from patient(style, number, seed, size)


def patient(style: Style, number: int, seed: int, size: int) -> Iterator[PhantomStudy]:
    """All films of one patient, oldest first."""
    for film, _ in exposures(style, number, seed, size):
        yield film


def exposures(style: Style, number: int, seed: int, size: int) -> Iterator[tuple[PhantomStudy, np.ndarray]]:
    """All films of one patient with their display values before rounding, float32 [H, W] in [0, 1]."""
    if size < 32:
        raise ValueError(f"size: {size} pixels is too small for a radiograph; give 32 or more")
    person, course, truth, films = _streams(style.name, number, seed)
    female = bool(person.random() < style.female)
    age = int(np.clip(person.normal(*style.age), 18, 95))
    anatomy = draw_anatomy(person, female, age, style.habitus)
    for visit, film in zip(draw_course(course, style), films):
        known = labels(visit, style, truth)
        for image, view in enumerate(_views(style, visit, truth)):
            value = render(style, anatomy, visit, view, size, film.spawn(1)[0])
            study = PhantomStudy(
                patient=f"P{number + 1:04d}",
                study=visit.index,
                image=image,
                day=visit.day,
                view=view,
                sex="F" if female else "M",
                age=age + visit.day // 365,
                labels=known,
                severity={x.finding: x.severity for x in visit.lesions},
                progression=visit.progression,
                change=visit.change,
                lesions=visit.lesions,
                devices=visit.devices,
                pixels=grey(value),
            )
            yield study, value


def render(
    style: Style, anatomy: Anatomy, visit: Visit, view: str, size: int, film: np.random.SeedSequence
) -> np.ndarray:
    """One film as display values in [0, 1], float32 [H, W] with short side ``size``."""
    place, noise = (np.random.default_rng(s) for s in film.spawn(2))
    scanner = style.scanner
    pose = draw_pose(place, visit.ap and view != "LATERAL", style.sloppiness)
    aspect = scanner.aspect if view != "LATERAL" else max(scanner.aspect, 1.15)
    width, height = (size, round(size * aspect)) if aspect >= 1 else (round(size / aspect), size)
    # A landscape field must still hold the lungs from top to bottom.
    field = max(scanner.field, 2.45 / aspect)
    canvas = Canvas(height, width, field, centre_y=-0.03)
    frame = Frame(anatomy, pose, **_displacement(visit.lesions))
    draw = lateral if view == "LATERAL" else frontal
    seed = int(place.integers(2**31))
    density = draw(canvas, frame, visit.lesions, visit.devices, scanner.beam, seed)
    density = _place(canvas, density, pose.tilt, pose.shift, pose.zoom)
    value = develop(canvas, expose(canvas, density, scanner, noise), scanner, place)
    marker = ("L" if place.random() < 0.6 else "R") if place.random() < scanner.marker else ""
    return frame_up(canvas, value, scanner, marker, place)


def _place(canvas: Canvas, density: np.ndarray, tilt: float, shift: tuple[float, float], zoom: float) -> np.ndarray:
    matrix = cv2.getRotationMatrix2D((canvas.width / 2, canvas.height / 2), np.degrees(tilt), zoom)
    matrix[:, 2] += np.asarray(shift) * canvas.scale
    return cv2.warpAffine(
        density,
        matrix,
        (canvas.width, canvas.height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _displacement(lesions: tuple[Lesion, ...]) -> dict[str, object]:
    """What findings do to the contours around them."""
    shift, loss = 0.0, [0.0, 0.0]
    for x in lesions:
        k = 0 if x.side < 0 else 1
        if x.finding == "Pleural Effusion" and x.side and x.severity > 0.6:
            shift -= x.side * 0.12 * (x.severity - 0.6)
        elif x.finding == "Pneumothorax" and x.severity > 0.6:
            shift -= x.side * 0.20 * (x.severity - 0.6)
        elif x.finding == "Atelectasis":
            shift += x.side * 0.03 * x.severity
            loss[k] += 0.10 * x.severity
    return {"mediastinal_shift": shift, "volume_loss": tuple(loss)}


def _views(style: Style, visit: Visit, rng: np.random.Generator) -> list[str]:
    extra = rng.random() < style.lateral
    return ["AP"] if visit.ap else ["PA", "LATERAL"] if extra else ["PA"]


def _streams(name: str, number: int, seed: int) -> tuple:
    """Own random streams of one patient: person, course, labels, and an endless line of film seeds."""
    site = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    root = np.random.SeedSequence([seed, site, number])
    person, course, truth, films = root.spawn(4)
    return (*(np.random.default_rng(s) for s in (person, course, truth)), _endless(films))


def _endless(sequence: np.random.SeedSequence) -> Iterator[np.random.SeedSequence]:
    while True:
        yield sequence.spawn(1)[0]
