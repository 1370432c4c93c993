"""Virtual sites of a simulation: which store they share and which rows each holds. Server and sites compute the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from models.config import config_hash, to_plain
from models.studies.partition import partition
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


def site_rows(launched: Launch, store: Store) -> dict[str, dict[str, np.ndarray]]:
    """Rows of the store by site and split: ``rows["north"]["train"]``. Patient-disjoint twice over."""
    simulation = launched.plan.simulation
    splits = store.split(simulation.fractions)
    sites = partition(store, simulation.partition, store.where(view=simulation.views))
    return {
        site: {name: rows[splits[rows] == name] for name in simulation.fractions}
        for site, rows in sorted(sites.items())
    }


def pooled_rows(rows: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The union of all sites' rows, by split."""
    names = next(iter(rows.values())).keys()
    return {name: np.sort(np.concatenate([site[name] for site in rows.values()])) for name in names}
