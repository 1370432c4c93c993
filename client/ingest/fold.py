"""From committed rows to the table: studies in order, days counted from the first, priors named."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from models.studies.pairing import PairingRules, Sighting, pair
from models.studies.schema import COLUMNS, LABEL_PREFIX, Label, table_schema

Row = dict[str, Any]

PART = 8192
"""Most rows of a part."""


def fold(rows: Iterable[Row], findings: tuple[str, ...], pairing: PairingRules | None = None) -> Iterator[pa.Table]:
    """The store's table from ``rows``, in their order, in parts of at most ``PART`` rows.

    ``rows`` is gone through three times; only what orders the studies of a patient is held of all rows at once.

    ``day`` and ``order`` of a row come on any origin of the patient. Here ``day`` is shifted so that the
    patient's first study is day 0, ``order`` becomes a dense rank, ``prior`` is the study that
    :func:`models.studies.pairing.pair` names for the image.
    """
    timeline = _timelines(rows)
    priors = _priors(rows, timeline, pairing)
    schema = table_schema(findings)
    every = iter(rows)
    while part := list(itertools.islice(every, PART)):
        yield pa.table({name: _column(name, part, timeline, priors) for name in schema.names}, schema=schema)


def _column(name: str, rows: list[Row], timeline: dict[tuple[str, str], Row], priors: dict[str, str]) -> list[Any]:
    if name == "prior":
        return [priors.get(row["image"]) for row in rows]
    if name in ("day", "order"):
        return [timeline[row["patient"], row["study"]][name] for row in rows]
    if name in COLUMNS:
        return [row.get(name) for row in rows]
    return [row.get(name, int(Label.UNMENTIONED)) for row in rows]


def free_findings(rows: Sequence[Row]) -> set[str]:
    """Names of the findings that any row speaks of."""
    return {name.removeprefix(LABEL_PREFIX) for row in rows for name in row if name.startswith(LABEL_PREFIX)}


def _priors(rows: Iterable[Row], timeline: dict[tuple[str, str], Row], pairing: PairingRules | None) -> dict[str, str]:
    """Study of the prior, by image."""
    sightings = (
        Sighting(row["patient"], row["study"], row["image"], row.get("view", "UNKNOWN"), place["day"], place["order"])
        for row in rows
        for place in (timeline[row["patient"], row["study"]],)
    )
    return {link.current.image: link.prior.study for link in pair(sightings, pairing)}


def _timelines(rows: Iterable[Row]) -> dict[tuple[str, str], Row]:
    """For every (patient, study): its day, order and prior."""
    patients: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        study = patients[row["patient"]].setdefault(row["study"], {"day": None, "order": None})
        for name in ("day", "order"):
            study[name] = _least(study[name], row.get(name))
    return {
        (patient, key): placed for patient, studies in patients.items() for key, placed in _timeline(studies).items()
    }


def _timeline(studies: dict[str, Row]) -> dict[str, Row]:
    """Place the studies of one patient.

    The axis is (day, order) where every study has a day, else order where every study has one, else only
    studies with a day are placed: guessing where an undated study belongs would invent a prior.
    Studies that nothing tells apart share a rank and are no prior of each other.
    """
    if all(study["day"] is not None for study in studies.values()):
        place = {key: (study["day"], _or(study["order"], 0)) for key, study in studies.items()}
    elif all(study["order"] is not None for study in studies.values()):
        place = {key: (study["order"],) for key, study in studies.items()}
    else:
        place = {key: (study["day"],) for key, study in studies.items() if study["day"] is not None}
    if len(studies) == 1:
        place = {key: (0,) for key in studies}
    ranks = {position: rank for rank, position in enumerate(sorted(set(place.values())))}
    days = [study["day"] for study in studies.values() if study["day"] is not None]
    first_day = min(days, default=0)
    result = {}
    for key, study in studies.items():
        rank = ranks[place[key]] if key in place else None
        result[key] = {
            "day": None if study["day"] is None else study["day"] - first_day,
            "order": rank,
        }
    return result


def _least(a: int | None, b: int | None) -> int | None:
    return a if b is None else b if a is None else min(a, b)


def _or(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value
