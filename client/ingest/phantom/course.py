"""A patient's course: which findings are there in each study, how severe, and what changed since the last
one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from client.ingest.phantom.anatomy import LEFT, RIGHT
from client.ingest.phantom.devices import KINDS
from client.ingest.phantom.findings import ZONES, Lesion
from client.ingest.phantom.style import PATHOLOGIES, Style
from models.studies.schema import CHEXPERT, Label

MILD = 0.25
"""The least severity of a present finding at a hospital that sees everything (``Style.mildest``)."""

STEP = 0.18
"""The least change of severity that counts as improved or worsened."""

PROGRESSIONS = ("improved", "stable", "worsened")
CHANGES = ("absent", "new", "worsened", "stable", "improved", "resolved")

_OPACITIES = ("Edema", "Consolidation", "Lung Lesion", "Atelectasis")
_NOT_DRAWN = ("Pneumonia", "Pleural Other", "Fracture")
# Chance that a present finding changes in a long gap, and whether change is for the better, given treatment.
_PACE = {
    "Enlarged Cardiomediastinum": (0.15, 0.3),
    "Cardiomegaly": (0.35, 0.35),
    "Lung Lesion": (0.5, 0.25),
    "Edema": (0.75, 0.62),
    "Consolidation": (0.7, 0.6),
    "Atelectasis": (0.65, 0.6),
    "Pneumothorax": (0.7, 0.65),
    "Pleural Effusion": (0.65, 0.5),
}
_SLOW = ("Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion")
# What raises the odds of what: heart failure comes as a syndrome.
_TOGETHER = {
    "Edema": ("Cardiomegaly", 2.5),
    "Pleural Effusion": ("Edema", 2.5),
    "Atelectasis": ("Pleural Effusion", 2.0),
}


@dataclass(frozen=True)
class Visit:
    """One study of a course, before it is rendered."""

    index: int
    day: int
    ap: bool
    lesions: tuple[Lesion, ...]
    devices: tuple[str, ...]
    progression: dict[str, str]
    change: dict[str, str]


def draw_course(rng: np.random.Generator, style: Style) -> list[Visit]:
    """A random course of one patient."""
    lesions = _onset(rng, style)
    ap = rng.random() < style.ap
    day, visits = 0, []
    devices: tuple[str, ...] = ()
    for index in range(style.studies):
        if index:
            gap = max(1, round(float(style.gap * np.exp(0.8 * rng.standard_normal()))))
            day += gap
            before = {x.finding: x for x in lesions}
            lesions = _evolve(rng, style, lesions, gap)
            ap = ap if rng.random() < 0.8 else rng.random() < style.ap
            progression, change = compare(before, {x.finding: x for x in lesions})
        else:
            progression, change = {}, {}
        devices = _devices(rng, style, ap, lesions, devices)
        visits.append(Visit(index, day, ap, tuple(lesions), devices, progression, change))
        if rng.random() >= style.follow_up:
            break
    return visits


def compare(before: dict[str, Lesion], after: dict[str, Lesion]) -> tuple[dict[str, str], dict[str, str]]:
    """Progression (one of PROGRESSIONS, for findings present before or after) and change (one of CHANGES,
    for all).
    """
    progression, change = {}, {}
    for finding in PATHOLOGIES:
        was = before[finding].severity if finding in before else 0.0
        now = after[finding].severity if finding in after else 0.0
        if not was and not now:
            change[finding] = "absent"
            continue
        delta = now - was
        word = "worsened" if delta >= STEP else "improved" if delta <= -STEP else "stable"
        if not was:
            progression[finding], change[finding] = "worsened", "new"
        elif not now:
            progression[finding], change[finding] = "improved", "resolved"
        else:
            progression[finding] = change[finding] = word
    return progression, change


def labels(visit: Visit, style: Style, rng: np.random.Generator) -> dict[str, int]:
    """CheXpert labels of a visit. Findings that the phantom never draws stay UNMENTIONED, except pneumonia,
    which is a clinical reading of a consolidation and therefore UNCERTAIN with one.
    """
    severity = {x.finding: x.severity for x in visit.lesions}
    out = {f: int(Label.PRESENT if f in severity else Label.ABSENT) for f in PATHOLOGIES}
    for finding, value in severity.items():
        if value < 0.35 and rng.random() < style.hedging:
            out[finding] = int(Label.UNCERTAIN)
    out |= {f: int(Label.UNMENTIONED) for f in _NOT_DRAWN}
    if "Consolidation" in severity:
        out["Pneumonia"] = int(Label.UNCERTAIN)
    out["Lung Opacity"] = (
        max(out[f] for f in _OPACITIES) if any(out[f] == 1 for f in _OPACITIES) else min(out[f] for f in _OPACITIES)
    )
    if out["Cardiomegaly"] == Label.PRESENT:
        out["Enlarged Cardiomediastinum"] = int(Label.PRESENT)
    out["Support Devices"] = int(Label.PRESENT if visit.devices else Label.ABSENT)
    out["No Finding"] = int(Label.ABSENT if severity else Label.PRESENT)
    return {f: out[f] for f in CHEXPERT}


def _onset(rng: np.random.Generator, style: Style) -> list[Lesion]:
    lesions: list[Lesion] = []
    for finding in PATHOLOGIES:
        chance = style.prevalence.get(finding, 0.0)
        other, factor = _TOGETHER.get(finding, (None, 1.0))
        if other:
            # Keeps the prevalence: more with the companion, less without it.
            share = style.prevalence.get(other, 0.0)
            with_other = any(x.finding == other for x in lesions)
            chance = chance * (factor if with_other else 1.0) / (1 + share * (factor - 1))
        if rng.random() < min(chance, 0.95):
            lesions.append(_new(rng, style, finding))
    return lesions


def _new(rng: np.random.Generator, style: Style, finding: str) -> Lesion:
    side, zone = 0, ""
    if finding in ("Lung Lesion", "Consolidation", "Atelectasis", "Pneumothorax", "Pleural Effusion"):
        side = RIGHT if rng.random() < 0.53 else LEFT
    if finding == "Pleural Effusion" and rng.random() < 0.35:
        side = 0
    if finding in ("Lung Lesion", "Consolidation"):
        zone = ZONES[int(rng.choice(3, p=(0.35, 0.25, 0.40)))]
    severity = float(style.mildest + (1 - style.mildest) * rng.beta(1.7, 1.3))
    return Lesion(finding, round(severity, 3), side, zone, int(rng.integers(2**31)))


def _evolve(rng: np.random.Generator, style: Style, lesions: list[Lesion], gap: int) -> list[Lesion]:
    """The findings ``gap`` days later."""
    after = []
    for lesion in lesions:
        severity = _moved(rng, style, lesion, gap)
        if severity:
            after.append(replace(lesion, severity=round(severity, 3)))
    for finding in PATHOLOGIES:
        if all(x.finding != finding for x in lesions):
            chance = style.prevalence.get(finding, 0.0) * (0.15 if finding in _SLOW else 0.35)
            if rng.random() < chance:
                after.append(_new(rng, style, finding))
    return sorted(after, key=lambda x: PATHOLOGIES.index(x.finding))


def _moved(rng: np.random.Generator, style: Style, lesion: Lesion, gap: int) -> float:
    """New severity, 0 once resolved: either almost the old one or more than STEP away, never between."""
    moves, better = _PACE[lesion.finding]
    pace = min(1.0, gap / 90) if lesion.finding in _SLOW else min(1.0, 0.55 + gap / 10)
    if rng.random() >= moves * pace:
        return float(np.clip(lesion.severity + rng.normal(0, 0.015), style.mildest, 1))
    step = float(rng.uniform(STEP + 0.03, 0.6))
    # Without room to get worse it gets better.
    worse = rng.random() >= better and lesion.severity <= 1 - STEP - 0.01
    severity = min(lesion.severity + step, 1.0) if worse else lesion.severity - step
    return severity if severity >= style.mildest else 0.0


def _devices(
    rng: np.random.Generator, style: Style, ap: bool, lesions: list[Lesion], before: tuple[str, ...]
) -> tuple[str, ...]:
    ill = sum(x.severity for x in lesions)
    chance = style.devices * (0.7 + 0.25 * min(ill, 2)) * (1.0 if ap else 0.35)
    if rng.random() >= chance:
        return ("pacemaker",) if "pacemaker" in before else ()
    weights = dict(zip(KINDS, (0.5, 0.35, 0.35, 0.12, 0.0, 0.5) if ap else (0.2, 0.0, 0.05, 0.6, 0.0, 0.2)))
    if any(x.finding == "Pneumothorax" for x in lesions):
        weights["chest tube"] = 0.4
    # A pacemaker stays; lines and tubes often do.
    kept = {k for k in before if k == "pacemaker" or rng.random() < 0.6}
    chosen = tuple(k for k in KINDS if rng.random() < weights[k] or k in kept)
    return chosen or (("central line",) if ap else ("pacemaker",))
