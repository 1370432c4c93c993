"""Which earlier study a study is compared with: pure, and the same whatever the order of the input.

A *prior* of an image is an image of the same patient in an earlier study with a compatible view; the most
recent such study wins. Studies that nothing tells apart in time are no priors of each other.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from models.config import ConfigError, config
from models.studies.schema import VIEWS

_FRONTAL = ("PA", "AP")

Position = tuple[int, ...]


@config
class PairingRules:
    """Which priors are allowed.

    Attributes:
        max_gap_days: longest gap in days; ``None`` for no limit. min_gap_days: shortest gap in days; 0 lets
        two studies of one day pair when ``order`` tells them apart. frontal: ``same`` pairs PA with PA and
        AP with AP only; ``mixed`` lets PA and AP pair. unknown: whether images of unknown view pair with
        each other. They never pair with a known view. undated: whether studies pair by their order where
        the gap in days is not known.
    """

    max_gap_days: int | None = 1826
    min_gap_days: int = 0
    frontal: Literal["same", "mixed"] = "mixed"
    unknown: bool = False
    undated: bool = True

    def check(self) -> None:
        if self.min_gap_days < 0:
            raise ConfigError(f"min_gap_days: {self.min_gap_days}; 0 or more days are needed")
        if self.max_gap_days is not None and self.max_gap_days < self.min_gap_days:
            raise ConfigError(
                f"max_gap_days ({self.max_gap_days}) is below min_gap_days ({self.min_gap_days}): no pair could exist"
            )


@dataclass(frozen=True, slots=True)
class Sighting:
    """One image in a patient's history.

    Attributes:
        day: days on any origin that is the same for all studies of the patient; ``None`` if unknown.
        order: rank of the study within the patient (any origin); ``None`` if unknown.
    """

    patient: str
    study: str
    image: str
    view: str = "UNKNOWN"
    day: int | None = None
    order: int | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """``current`` is compared with ``prior``; ``gap_days`` is ``None`` where a day is unknown."""

    current: Sighting
    prior: Sighting
    gap_days: int | None


def compatible(current: str, prior: str, rules: PairingRules) -> bool:
    """Whether two views show the same thing.

    Raises:
        ValueError: for a view that the schema does not know.
    """
    for view in (current, prior):
        if view not in VIEWS:
            raise ValueError(f"view {view!r} is not in the schema; allowed: {', '.join(VIEWS)}")
    if current == "UNKNOWN" or prior == "UNKNOWN":
        return rules.unknown and current == prior
    return current == prior or (rules.frontal == "mixed" and current in _FRONTAL and prior in _FRONTAL)


def pair(history: Iterable[Sighting], rules: PairingRules | None = None) -> list[Link]:
    """At most one link for each image of ``history``, sorted by (patient, study, image) of the current image.

    Among the images of equally recent studies the exact view wins, then the lower study key, then the lower
    image key.

    Raises:
        ValueError: when one study of a patient comes with two days or two orders, or a view is unknown.
    """
    rules = rules or PairingRules()
    patients: dict[str, list[Sighting]] = defaultdict(list)
    for sighting in sorted(set(history), key=lambda s: (s.patient, s.study, s.image, s.view)):
        patients[sighting.patient].append(sighting)
    links = []
    for sightings in patients.values():
        place = _places(sightings)
        placed = [s for s in sightings if s.study in place]
        backwards = [
            (position, sorted(same, key=lambda s: (s.study, s.image)))
            for position, same in itertools.groupby(
                sorted(placed, key=lambda s: place[s.study], reverse=True), key=lambda s: place[s.study]
            )
        ]
        for current in placed:
            prior = _prior(current, place[current.study], backwards, rules)
            if prior is not None:
                links.append(Link(current, prior, _gap(current, prior)))
    return links


def _places(sightings: list[Sighting]) -> dict[str, Position]:
    """Where each study of one patient stands in time; a study whose place is unknown is left out.

    The axis is (day, order) where every study has a day, else order where every study has one, else only
    studies with a day are placed: guessing where an undated study belongs would invent a prior.
    """
    times: dict[str, tuple[int | None, int | None]] = {}
    for s in sightings:
        if times.setdefault(s.study, (s.day, s.order)) != (s.day, s.order):
            raise ValueError("one study comes with two times; give all its images the same day and order")
    if all(day is not None for day, _ in times.values()):
        return {study: (day, order or 0) for study, (day, order) in times.items()}  # type: ignore[misc]
    if all(order is not None for _, order in times.values()):
        return {study: (order,) for study, (_, order) in times.items()}  # type: ignore[misc]
    return {study: (day,) for study, (day, _) in times.items() if day is not None}


def _prior(
    current: Sighting, now: Position, backwards: list[tuple[Position, list[Sighting]]], rules: PairingRules
) -> Sighting | None:
    for position, sightings in backwards:
        if position >= now:
            continue
        fitting = [
            prior
            for prior in sightings
            if compatible(current.view, prior.view, rules) and _gap_allowed(_gap(current, prior), rules)
        ]
        if fitting:
            return min(fitting, key=lambda prior: (prior.view != current.view, prior.study, prior.image))
    return None


def _gap_allowed(gap: int | None, rules: PairingRules) -> bool:
    if gap is None:
        return rules.undated
    return gap >= max(rules.min_gap_days, 0) and (rules.max_gap_days is None or gap <= rules.max_gap_days)


def _gap(current: Sighting, prior: Sighting) -> int | None:
    return None if current.day is None or prior.day is None else current.day - prior.day
