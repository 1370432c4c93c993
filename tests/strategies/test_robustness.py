"""What a plan may ask of robustness, and wrong labels: which films, how many, and that no held-out one is among them."""

from __future__ import annotations

import numpy as np
import pytest

from models.config import ConfigError, build
from models.studies.schema import Label
from models.studies.store import Store
from strategies.launch import launch
from strategies.plan import RunConfig
from strategies.virtual import corrupted_rows, open_store, site_rows, unlabelled_rows
from tests.world import FINDINGS, plan_values, write_plan, write_store

NOISE = {"noise": [0.1]}


def plan(**changes) -> RunConfig:
    return build(RunConfig, plan_values(**changes))


def test_robustness_is_off_by_default_and_empty_keys_mean_the_usual_strengths():
    assert plan().evaluation.robustness is None
    found = plan(evaluation__robustness={})
    assert all(len(found.evaluation.robustness.strengths(k)) >= 4 for k in ("noise", "blur", "contrast", "brightness"))
    assert found.hash != plan().hash


def test_the_last_phase_and_the_reference_are_judged_spoilt():
    [phase] = plan_values()["phases"]
    phases = [{**phase, "name": name} for name in ("one", "two", "three")]
    found = plan(phases=phases, evaluation__robustness=NOISE)
    assert [p.name for p in found.phases_judged_spoilt] == ["three"]
    found = plan(phases=phases, evaluation__robustness=NOISE, evaluation__reference="one")
    assert [p.name for p in found.phases_judged_spoilt] == ["one", "three"]


def test_real_hospitals_and_corruption_out_of_range_are_refused():
    values = plan_values(evaluation__robustness=NOISE)
    del values["simulation"]
    with pytest.raises(ConfigError, match=r"evaluation.robustness and no 'simulation'"):
        build(RunConfig, values)
    for share in (-0.1, 1.1):
        with pytest.raises(ConfigError, match=f"corrupt_labels {share}"):
            plan(simulation__corrupt_labels=share)


def test_an_objective_on_reports_has_no_films_to_spoil():
    scratch = {"width": 32, "heads": 4, "depth": 1, "vocabulary": 1200}
    model = {"text": {"scratch": scratch, "lora": {"rank": 2}, "language_head": True}}
    phase = {"name": "words", "rounds": 1, "objective": {"name": "mntp"}, "local": {"epochs": 1}}
    assert plan(phases=[phase], model=model)
    with pytest.raises(ConfigError, match=r"evaluation.robustness and phases.words.objective 'mntp'"):
        plan(phases=[phase], model=model, evaluation__robustness=NOISE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("world") / "store", patients=30, silent="c")


def open_world(tmp_path, folder, **changes):
    tmp_path.mkdir(exist_ok=True)
    values = {"config": str(write_plan(tmp_path / "plan.yaml", **changes)), "data": str(folder), "out": str(tmp_path)}
    launched = launch(values)
    store = open_store(launched)
    return launched, store, site_rows(launched, store)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.4, 1.0])
def test_exactly_the_share_of_each_sites_labelled_training_films(tmp_path, folder, share):
    launched, store, rows = open_world(tmp_path, folder, simulation__corrupt_labels=share)
    wrong = corrupted_rows(launched, store, rows)
    assert len(set(wrong)) == len(wrong) > 0
    for site in ("a", "b"):
        train = rows[site]["train"]
        assert len(np.intersect1d(wrong, train)) == round(share * len(train))
    assert not np.intersect1d(wrong, rows["c"]["train"]).size, "a site without labels has none to be wrong"
    held_out = np.concatenate([r[name] for r in rows.values() for name in ("validation", "test")])
    assert not np.intersect1d(wrong, held_out).size
    assert np.array_equal(corrupted_rows(launched, store, rows), wrong)


def test_a_greater_share_adds_films_and_another_seed_draws_others(tmp_path, folder):
    found = {}
    for share in (0.1, 0.2, 0.4):
        found[share] = set(corrupted_rows(*open_world(tmp_path / str(share), folder, simulation__corrupt_labels=share)))
    assert found[0.1] < found[0.2] < found[0.4]
    other = set(corrupted_rows(*open_world(tmp_path / "seed", folder, simulation__corrupt_labels=0.4, seed=4)))
    assert len(other) == len(found[0.4]) and other != found[0.4]


def test_of_labelled_films_only_and_none_at_the_server(tmp_path, folder):
    changes = {"simulation__labelled": {"a": 0.5}, "simulation__corrupt_labels": 0.5, "simulation__server": 0.3}
    [phase] = plan_values()["phases"]
    launched, store, rows = open_world(tmp_path, folder, phases=[{**phase, "server": phase["local"]}], **changes)
    hidden = unlabelled_rows(launched, store, rows)
    wrong = corrupted_rows(launched, store.without_labels(hidden), rows)
    known = np.setdiff1d(rows["a"]["train"], hidden)
    assert len(wrong) == round(0.5 * len(known)) > 0 and np.isin(wrong, known).all()


def test_present_and_absent_change_places_in_those_films_alone(folder):
    store = Store.open(folder)
    truth = store.labels(FINDINGS).copy()
    rows = np.arange(0, len(store), 3)
    wrong = store.with_wrong_labels(rows).labels(FINDINGS)
    rest = np.setdiff1d(np.arange(len(store)), rows)
    assert np.array_equal(wrong[rest], truth[rest]) and np.array_equal(store.labels(FINDINGS), truth)
    turned = {Label.PRESENT: Label.ABSENT, Label.ABSENT: Label.PRESENT}
    for before, after in zip(truth[rows].ravel(), wrong[rows].ravel()):
        assert after == turned.get(Label(before), before)
    assert (truth[rows] == Label.PRESENT).any() and (truth[rows] == Label.UNMENTIONED).any()
    assert np.array_equal(store.with_wrong_labels(rows).with_wrong_labels(rows).labels(FINDINGS), truth)
    silent = store.with_wrong_labels(rows).without_labels(rows[:4]).labels(FINDINGS)
    assert (silent[rows[:4]] == Label.UNMENTIONED).all()
