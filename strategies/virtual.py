"""Virtual sites of a simulation: which store they share and which rows each holds. Server and sites compute the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from models.config import ConfigError, config_hash, to_plain
from models.randomness import stream_seed
from models.studies.partition import partition
from models.studies.schema import Label
from models.studies.splits import split
from models.studies.store import Store
from strategies.launch import Launch

POOLED = "pooled"
"""Name of the virtual site that holds everybody's patients, for the pooled arm."""


def store_path(launched: Launch) -> Path:
    """Where the shared store of this simulation lies: the user's own, or one named by what it is made from."""
    simulation = launched.plan.simulation
    if simulation.store:
        return launched.data
    recipe = {
        "phantom": to_plain(simulation.phantom),
        "imports": to_plain(simulation.imports),
        "short_side": simulation.short_side,
        "data": str(launched.data or ""),
        "seed": launched.plan.seed if simulation.phantom else 0,
    }
    return launched.out / "stores" / config_hash(recipe)[:16]


def open_store(launched: Launch) -> Store:
    """The shared store. What is derived from a user's own store (resized films) is kept in the run's ``out`` folder."""
    own = launched.plan.simulation.store
    return Store.open(store_path(launched), cache=launched.out / "stores" / "derived" if own else None)


def _chosen(store: Store, rows: np.ndarray, share: float, salt: str) -> np.ndarray:
    """Which of ``rows`` (bool) belong to the ``share`` of patients that a hash picks."""
    picked = split(store.patients.keys, {"yes": share, "no": 1 - share}, salt) == "yes"
    return picked[store.patients.codes[rows]]


def _at_server(launched: Launch, store: Store, rows: np.ndarray) -> np.ndarray:
    share = launched.plan.simulation.server
    return _chosen(store, rows, share, f"server {launched.plan.seed}") if share else np.zeros(len(rows), bool)


def site_rows(launched: Launch, store: Store) -> dict[str, dict[str, np.ndarray]]:
    """Rows of the store by site and split: ``rows["north"]["train"]``. Patient-disjoint twice over; what lies at the
    server is at no site.

    Raises:
        ConfigError: ``simulation.labelled`` names a site that there is not.
    """
    simulation = launched.plan.simulation
    found = _split(launched, store, partition(store, simulation.partition, _taking_part(launched, store)))
    strangers = sorted(set(simulation.labelled or {}) - set(found))
    if strangers:
        raise ConfigError(f"simulation.labelled.{strangers[0]}: no such site; this plan's sites are {', '.join(found)}")
    for of_site in found.values():
        of_site["train"] = of_site["train"][~_at_server(launched, store, of_site["train"])]
    return found


def _taking_part(launched: Launch, store: Store) -> np.ndarray:
    simulation = launched.plan.simulation
    rows = store.where(view=simulation.views)
    if not simulation.mentions:
        return rows
    unknown = sorted(set(simulation.mentions) - set(store.findings))
    if unknown:
        raise ConfigError(f"simulation.mentions {unknown[0]!r}: the store knows {', '.join(store.findings)}")
    return rows[(store.labels(simulation.mentions)[rows] != Label.UNMENTIONED).any(axis=1)]


def _split(launched: Launch, store: Store, sites: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    fractions = launched.plan.simulation.fractions
    splits = store.split(fractions)
    return {site: {name: rows[splits[rows] == name] for name in fractions} for site, rows in sorted(sites.items())}


def server_rows(launched: Launch, store: Store) -> np.ndarray:
    """Training rows that lie at the server."""
    rows = _taking_part(launched, store)
    train = rows[store.split(launched.plan.simulation.fractions)[rows] == "train"]
    return train[_at_server(launched, store, train)]


def unlabelled_rows(launched: Launch, store: Store, rows: Mapping[str, Mapping[str, np.ndarray]]) -> np.ndarray:
    """Training rows of all sites whose labels the plan withholds (``simulation.labelled``), drawn by patient and seed."""
    shares = launched.plan.simulation.labelled
    if shares is None:
        return np.zeros(0, dtype=np.int64)
    hidden = [
        of_site["train"][~_chosen(store, of_site["train"], shares.get(site, 0.0), f"labelled {launched.plan.seed}")]
        for site, of_site in rows.items()
    ]
    return np.sort(np.concatenate(hidden))


def corrupted_rows(launched: Launch, store: Store, rows: Mapping[str, Mapping[str, np.ndarray]]) -> np.ndarray:
    """Training rows whose answers the plan turns round (``simulation.corrupt_labels``): of each site, that share of the
    films that ``store`` has an answer for to a finding some phase trains on. A greater share adds films to a smaller."""
    share = launched.plan.simulation.corrupt_labels
    findings = {f: None for phase in launched.plan.phases for f in getattr(phase.objective, "findings", ())}
    answered = np.isin(store.labels(tuple(findings)), (Label.PRESENT, Label.ABSENT)).any(axis=1)
    keys, found = store.strings("image"), [np.zeros(0, dtype=np.int64)]
    for of_site in rows.values():
        labelled = [int(row) for row in of_site["train"] if answered[row]]
        labelled.sort(key=lambda row: stream_seed(launched.plan.seed, "corrupt labels", keys[row]))
        found.append(np.array(labelled[: round(share * len(labelled))], dtype=np.int64))
    return np.sort(np.concatenate(found))


def pooled_rows(
    rows: Mapping[str, Mapping[str, np.ndarray]], at_server: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """The union of all sites' rows, by split, with the training rows ``at_server``."""
    names = next(iter(rows.values())).keys()
    union = {name: np.sort(np.concatenate([site[name] for site in rows.values()])) for name in names}
    if at_server is not None:
        union["train"] = np.union1d(union["train"], at_server)
    return union
