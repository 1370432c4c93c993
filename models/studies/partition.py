"""One store into virtual sites, by patient: for simulated federations."""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np

from models.config import config
from models.studies.schema import Label
from models.studies.store import Store

_TRIES = 200


class PartitionError(ValueError):
    """A partition that the store cannot give. The text says why and what to change."""


@config
class Partition:
    """How to cut one store into sites.

    by: ``source`` (one site for each source), ``hash`` (equal parts, patients at random) or ``dirichlet``
        (label skew: the smaller ``alpha``, the more the sites differ).
    sites: how many; for ``source`` leave it out.
    alpha: concentration of the Dirichlet distribution, over 0; 0.1 is strong skew, 100 nearly none.
    findings: labels that the skew acts on; empty means all findings of the store.
    seed: of the draw; another seed, another partition.
    min_patients: fewest patients that a site may get.
    """

    by: Literal["source", "hash", "dirichlet"] = "source"
    sites: int | None = None
    alpha: float | None = None
    findings: tuple[str, ...] = ()
    seed: int = 0
    min_patients: int = 1

    def check(self) -> None:
        if self.by == "source" and self.sites is not None:
            raise ValueError("by: 'source' contradicts sites: the number of sources is what the store has; drop one")
        if self.by != "source" and (self.sites is None or self.sites < 1):
            raise ValueError(f"sites: {self.sites} with by: {self.by!r}; give a number of sites of at least 1")
        if self.by != "dirichlet" and (self.alpha is not None or self.findings):
            raise ValueError(f"by: {self.by!r} contradicts alpha and findings, which belong to 'dirichlet'; drop them")
        if self.by == "dirichlet" and (self.alpha is None or not 0 < self.alpha < float("inf")):
            raise ValueError(f"alpha: {self.alpha} with by: 'dirichlet'; give a number over 0, such as 0.5")
        if self.min_patients < 1:
            raise ValueError(f"min_patients: {self.min_patients}; at least 1")


def partition(store: Store, plan: Partition, rows: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Rows (int64, ascending) of every virtual site, by its name: no patient is in two, every row is in one.

    Args:
        store: the store to cut.
        plan: how.
        rows: only these rows of the store (default: all).

    Raises:
        PartitionError: fewer patients than the plan needs, or a finding that the store does not know.
    """
    rows = np.arange(len(store)) if rows is None else np.unique(np.asarray(rows, dtype=np.int64))
    codes, of_row = np.unique(store.patients.codes[rows], return_inverse=True)
    if plan.by == "source":
        names, site_of = _by_source(store, rows, of_row, len(codes))
    else:
        assert plan.sites is not None
        needed = plan.sites * plan.min_patients
        if needed > len(codes):
            raise PartitionError(
                f"{plan.sites} sites of at least {plan.min_patients} patient(s) need {needed}, "
                f"there are {len(codes)}; ask for fewer sites"
            )
        width = len(str(plan.sites))
        names = [f"site-{i + 1:0{width}d}" for i in range(plan.sites)]
        shuffled = _shuffled(store.patients.keys[codes], plan.seed)
        if plan.by == "hash":
            site_of = np.empty(len(codes), dtype=np.int64)
            site_of[shuffled] = np.arange(len(codes)) * plan.sites // len(codes)
        else:
            site_of = _by_dirichlet(store, plan, rows, of_row, shuffled)
    sizes = np.bincount(site_of, minlength=len(names))
    if sizes.min() < plan.min_patients:
        small = names[int(sizes.argmin())]
        raise PartitionError(
            f"site {small!r} has {sizes.min()} patient(s), min_patients is {plan.min_patients}; "
            "lower it, or leave "
            "this source out"
        )
    return {name: rows[site_of[of_row] == i] for i, name in enumerate(names)}


def _by_source(store: Store, rows: np.ndarray, of_row: np.ndarray, count: int) -> tuple[list[str], np.ndarray]:
    """A patient seen in two sources goes where most of the images are, or a patient would be in two sites."""
    names, source = np.unique(store.strings("source")[rows].astype(str), return_inverse=True)
    votes = np.zeros((count, len(names)), dtype=np.int64)
    np.add.at(votes, (of_row, source), 1)
    return [str(name) for name in names], votes.argmax(axis=1)


def _by_dirichlet(
    store: Store, plan: Partition, rows: np.ndarray, of_row: np.ndarray, shuffled: np.ndarray
) -> np.ndarray:
    """Each class of patients is dealt to the sites with its own proportions p ~ Dirichlet(alpha, ..., alpha).

    After Hsu et al. 2019 (arXiv:1909.06335), with patients in the place of images. Drawn anew until every
    site has its ``min_patients``.
    """
    assert plan.sites is not None and plan.alpha is not None
    classes = _rarest_finding(store, plan.findings, rows, of_row, len(shuffled))[shuffled]
    generator = np.random.Generator(np.random.PCG64(plan.seed))
    best = 0
    for _ in range(_TRIES):
        dealt = np.empty(len(shuffled), dtype=np.int64)
        for kind in np.unique(classes):
            members = np.flatnonzero(classes == kind)
            shares = generator.dirichlet(np.full(plan.sites, plan.alpha))
            counts = generator.multinomial(len(members), shares)
            dealt[members] = np.repeat(np.arange(plan.sites), counts)
        fewest = int(np.bincount(dealt, minlength=plan.sites).min())
        if fewest >= plan.min_patients:
            site_of = np.empty_like(dealt)
            site_of[shuffled] = dealt
            return site_of
        best = max(best, fewest)
    raise PartitionError(
        f"alpha {plan.alpha} over {plan.sites} sites left a site with {best} patient(s) or fewer in each "
        f"of {_TRIES} "
        f"draws, min_patients is {plan.min_patients}; raise alpha, or ask for fewer sites or patients"
    )


def _rarest_finding(
    store: Store, findings: tuple[str, ...], rows: np.ndarray, of_row: np.ndarray, count: int
) -> np.ndarray:
    """Class of each patient: of the findings that its images show, the one that fewest patients have.

    One class a finding, and one for none: label patterns as such would be nearly as many as patients.
    """
    unknown = sorted(set(findings) - set(store.findings))
    if unknown:
        raise PartitionError(f"findings {unknown} are not in the store; it knows: {', '.join(store.findings)}")
    labels = store.labels(findings or store.findings)[rows]
    has = np.zeros((count, labels.shape[1]), dtype=bool)
    np.logical_or.at(has, of_row, labels == Label.PRESENT)
    by_rarity = np.argsort(has.sum(axis=0), kind="stable")
    first = has[:, by_rarity].argmax(axis=1)
    return np.where(has.any(axis=1), by_rarity[first], -1)


def _shuffled(keys: np.ndarray, seed: int) -> np.ndarray:
    """Order of the patients by a seeded hash of their keys; the order of rows has no part in it."""
    return np.argsort([hashlib.sha256(f"{seed}\0{key}".encode()).hexdigest() for key in keys], kind="stable")
