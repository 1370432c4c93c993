"""Virtual sites: server and sites compute the same rows, and nobody trains on what another is judged on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from strategies.launch import launch
from strategies.virtual import open_store, pooled_rows, site_rows, store_path
from tests.world import write_plan, write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("world") / "store", patients=12)


def launched(folder, store, **changes):
    folder.mkdir(exist_ok=True)
    values = {
        "config": str(write_plan(folder / "plan.yaml", **changes)),
        "data": str(store),
        "out": str(folder / "out"),
    }
    return launch(values)


@pytest.mark.parametrize(
    "partition",
    [{"by": "source"}, {"by": "hash", "sites": 4}, {"by": "dirichlet", "sites": 3, "alpha": 0.5}],
    ids=lambda p: p["by"],
)
def test_no_patient_is_at_two_sites_or_in_two_splits_and_nobody_is_lost(tmp_path, store, partition):
    plan = launched(tmp_path / "a", store, simulation__partition=partition)
    opened = open_store(plan)
    rows = site_rows(plan, opened)
    assert set(rows) == {"a", "b", "c"} if partition["by"] == "source" else len(rows) == partition["sites"]
    parts = [rows[site][split] for site in rows for split in rows[site]]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(opened)))
    owners: dict[int, set] = {}
    for site in rows:
        for split, found in rows[site].items():
            for patient in opened.patients.codes[found]:
                owners.setdefault(int(patient), set()).add((site, split))
    assert all(len(places) == 1 for places in owners.values())
    again = site_rows(plan, open_store(plan))
    assert all(np.array_equal(again[s][k], rows[s][k]) for s in rows for k in rows[s])


def test_the_pooled_site_holds_everybodys_rows_by_split(tmp_path, store):
    plan = launched(tmp_path / "a", store)
    rows = site_rows(plan, open_store(plan))
    pooled = pooled_rows(rows)
    for split in ("train", "validation", "test"):
        assert sorted(pooled[split].tolist()) == sorted(np.concatenate([r[split] for r in rows.values()]).tolist())
    assert not set(pooled["train"].tolist()) & set(pooled["validation"].tolist())


def test_a_users_own_store_is_read_where_it_is_and_never_written_into(tmp_path, store):
    before = sorted(p.relative_to(store).as_posix() for p in store.rglob("*"))
    plan = launched(tmp_path / "a", store)
    assert store_path(plan) == store
    open_store(plan).resized(16, "crop", None)
    assert sorted(p.relative_to(store).as_posix() for p in store.rglob("*")) == before
    assert any((plan.out / "stores" / "derived").rglob("*"))


def test_a_made_store_is_named_by_what_it_is_made_from(tmp_path):
    phantom = {
        "phantom": {"styles": ["north"], "patients": 5},
        "fractions": {"train": 0.5, "validation": 0.5},
    }

    def path(name: str, **changes):
        folder = tmp_path / name
        folder.mkdir()
        simulation = phantom | changes.pop("simulation", {})
        values = {"config": str(write_plan(folder / "plan.yaml", simulation=simulation, **changes))}
        return store_path(launch(values | {"out": str(tmp_path / "out")}))

    base = path("base")
    assert base.parent == tmp_path / "out" / "stores"
    assert path("again") == base and path("rounds", phases__0__rounds=9) == base  # training does not change patients
    other = {"phantom": {"styles": ["north"], "patients": 6}}
    assert len({base, path("more", simulation=other), path("seed", seed=9)}) == 3
    assert path("split", simulation={"fractions": {"train": 0.9, "validation": 0.1}}) == base


def test_imported_images_are_the_same_whatever_the_seed(tmp_path, store):
    imports = {
        "imports": [{"layout": "nih64", "folder": "x"}],
        "fractions": {"train": 0.5, "validation": 0.5},
    }
    one = launched(tmp_path / "a", store, simulation=imports)
    other = launched(tmp_path / "b", store, simulation=imports, seed=99)
    other = dataclasses.replace(other, out=one.out)
    assert store_path(one) == store_path(other) and store_path(one).parent == one.out / "stores"
