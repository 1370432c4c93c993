"""Invented identities: names, numbers, places and dates that must never leave a site."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

import numpy as np

_STARTS = (
    "Bra",
    "Che",
    "Dro",
    "Elu",
    "Fim",
    "Gro",
    "Hal",
    "Iva",
    "Jor",
    "Kel",
    "Lum",
    "Mor",
    "Nev",
    "Orb",
    "Pel",
)
_MIDDLES = ("ba", "den", "fi", "go", "li", "mar", "nu", "quo", "ri", "sen", "tho", "vel", "xi", "zan")
_ENDS = (
    "bart",
    "dine",
    "fold",
    "gax",
    "lund",
    "mede",
    "nix",
    "quist",
    "rith",
    "sova",
    "thane",
    "vaux",
    "wyn",
    "zek",
)
_STREETS = ("Quillback Row", "Tarnbell Lane", "Ouseled Street", "Fennimark Way", "Dulverine Close")
_TOWNS = ("Marrowick", "Easter Plenholt", "Corvendale", "Tilbeck", "Ombersley Quay")


@dataclass(frozen=True)
class Person:
    """A patient's identity."""

    family: str
    given: str
    number: str  # patient identifier of the hospital
    other_number: str
    born: datetime.date
    street: str
    town: str
    phone: str
    first_day: datetime.date  # of the first study

    @property
    def dicom_name(self) -> str:
        return f"{self.family.upper()}^{self.given.upper()}"


@dataclass(frozen=True)
class Hospital:
    """Identity of a site and its staff."""

    name: str
    address: str
    prefix: str  # of accession numbers
    radiologists: tuple[str, ...]
    referrers: tuple[str, ...]
    station: str


def invent_name(rng: np.random.Generator) -> str:
    """One made-up word with a capital."""
    middle = _MIDDLES[int(rng.integers(len(_MIDDLES)))] if rng.random() < 0.5 else ""
    return _STARTS[int(rng.integers(len(_STARTS)))] + middle + _ENDS[int(rng.integers(len(_ENDS)))]


def invent_hospital(name: str, rng: np.random.Generator) -> Hospital:
    """The site called ``name``."""
    town = _TOWNS[int(rng.integers(len(_TOWNS)))]
    return Hospital(
        name=f"{invent_name(rng)} {name.capitalize()} Hospital",
        address=f"{int(rng.integers(1, 200))} {_STREETS[int(rng.integers(len(_STREETS)))]}, {town}",
        prefix=invent_name(rng)[:2].upper(),
        radiologists=tuple(invent_name(rng) for _ in range(4)),
        referrers=tuple(invent_name(rng) for _ in range(8)),
        station=f"XR{int(rng.integers(10, 99))}{invent_name(rng)[:3].upper()}",
    )


def invent_person(number: int, age: int, rng: np.random.Generator) -> Person:
    """The patient with this serial number in the site, ``age`` years old at the first study."""
    first = datetime.date(2012, 1, 1) + datetime.timedelta(days=int(rng.integers(0, 3000)))
    return Person(
        family=invent_name(rng),
        given=invent_name(rng),
        number=f"{int(rng.integers(10, 99))}{number:05d}{int(rng.integers(10)):d}",
        other_number=f"Z{int(rng.integers(10**7, 10**8))}",
        born=first - datetime.timedelta(days=int(age * 365.2425) + int(rng.integers(1, 364))),
        street=f"{int(rng.integers(1, 99))} {_STREETS[int(rng.integers(len(_STREETS)))]}",
        town=_TOWNS[int(rng.integers(len(_TOWNS)))],
        phone=f"555-{int(rng.integers(100, 200)):04d}",
        first_day=first,
    )
