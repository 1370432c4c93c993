"""The plan of a run: shipped plans load, and what contradicts itself is named before anything starts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import yaml

from models.config import ConfigError, build, read_yaml, to_plain
from strategies.plan import Evaluation, Federation, RunConfig, Simulation, load_run
from tests.world import FINDINGS, plan_values, write_plan

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "configs" / "runs").glob("*.yaml"))


def plan(**changes) -> RunConfig:
    return build(RunConfig, plan_values(**changes))


def refused(**changes) -> str:
    with pytest.raises(ConfigError) as caught:
        plan(**changes)
    return str(caught.value)


def test_plans_are_shipped():
    assert {"phantom", "real"} <= {p.stem for p in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_a_shipped_plan_loads_and_says_what_it_says(path):
    loaded, written = load_run(path), read_yaml(path)
    assert loaded.name == path.stem
    assert_same(to_plain(loaded), written)


def assert_same(effective, written, where: str = "") -> None:
    """Every value of the YAML stands in the effective plan."""
    if isinstance(written, dict):
        for key, value in written.items():
            assert_same(effective[key], value, f"{where}.{key}")
    elif isinstance(written, list):
        assert len(effective) == len(written), where
        for i, (one, other) in enumerate(zip(effective, written)):
            assert_same(one, other, f"{where}.{i}")
    else:
        assert effective == written, where


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_a_shipped_plan_names_no_path_of_one_machine(path):
    assert "/home" not in path.read_text() and "/work" not in path.read_text()


def test_the_plan_of_the_docstring_loads(tmp_path):
    import strategies.plan as module

    text = module.__doc__.split("\n\n", 1)[1]
    values = yaml.safe_load(text)
    values["federation"]["min_sites"] = 1
    assert build(RunConfig, values).phases[0].rounds == 8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"phases": []}, ["phases: empty"]),
        ({"phases__0__rounds": 0}, ["phases.0: rounds 0"]),
        ({"phases__0__local__steps": 3}, ["epochs 2.0 and steps 3"]),
        ({"phases__0__local__epochs": None}, ["epochs None and steps None"]),
        ({"phases__0__objective__size": 30}, ["phases.diagnosis.objective.size 30", "model.vision.patch 8"]),
        (
            {"phases__0__objective__name": "diagnosys"},
            ["unknown name 'diagnosys'; did you mean 'diagnosis'?"],
        ),
        ({"phases__0__rule": {"name": "fedavgn"}}, ["unknown name 'fedavgn'; did you mean 'fedavgm'?"]),
        (
            {"phases__0__exchange": {"components": ["text"]}},
            ["exchange.components text", "vision, head.diagnosis"],
        ),
        ({"arms": ["local"]}, ["arms ['local']", "'federated' is missing"]),
        ({"arms": ["federated", "pooled"], "simulation": None}, ["arms 'pooled'", "'simulation'"]),
        ({"federation__quorum": 0}, ["quorum 0.0"]),
        ({"federation__quorum": 1.5}, ["quorum 1.5"]),
        ({"federation__min_sites": 0}, ["min_sites 0"]),
        ({"federation__deadline_seconds": 0}, ["deadline_seconds 0.0"]),
        ({"evaluation__every": 0}, ["every 0"]),
        ({"evaluation__replicates": 10}, ["replicates 10"]),
        ({"evaluation__split": "test"}, ["evaluation.split 'test'", "simulation.fractions"]),
        (
            {"simulation__fractions": {"train": 1.0}},
            ["evaluation.split 'validation'", "simulation.fractions"],
        ),
        ({"simulation__fractions": {"validation": 1.0}}, ["fractions", "'train' needs a share"]),
        ({"simulation__fractions": {"train": 0.9, "validation": 0.2}}, ["fractions", "must sum to 1"]),
        (
            {"simulation__fractions": {"train": 1.2, "validation": 0.1, "test": -0.3}},
            ["fractions", "not be negative"],
        ),
        ({"simulation__fractions": {"train": 0.5, "val": 0.5}}, ["simulation.fractions.val"]),
        ({"simulation__store": False}, ["phantom, imports, store", "given: none"]),
        (
            {"simulation__phantom": {"styles": ["north"]}},
            ["phantom, imports, store", "given: phantom, store"],
        ),
        ({"simulation__partition": {"by": "source", "sites": 3}}, ["'source' contradicts sites"]),
        ({"model__vision__heads": 5}, ["width 32 and heads 5"]),
        ({"seed": None}, ["seed"]),
    ],
)
def test_a_contradiction_names_its_keys(changes, said):
    text = refused(**changes)
    for part in said:
        assert part in text


def phases(*changes: dict) -> list[dict]:
    base = plan_values()["phases"][0]
    return [{**base, "name": f"p{i}", **change} for i, change in enumerate(changes)]


def test_two_phases_of_one_name_are_refused():
    assert "a name stands twice" in refused(phases=phases({"name": "a"}, {"name": "a"}))


@pytest.mark.parametrize("findings", [list(reversed(FINDINGS)), ["Edema"], ["Edema", "Fracture"]])
def test_two_phases_share_a_head_only_if_it_means_the_same(findings):
    """Otherwise the second phase trains the first one's outputs under other names."""
    objective = plan_values()["phases"][0]["objective"]
    text = refused(phases=phases({}, {"objective": {**objective, "findings": findings}}))
    assert "phases.p0.objective.findings" in text and "phases.p1.objective.findings" in text
    assert len(plan(phases=phases({}, {"rounds": 5})).phases) == 2


def test_every_mistake_is_told_with_the_file(tmp_path):
    path = write_plan(tmp_path / "mine.yaml", federation__quorumm=1, seeed=3, phases__0__local__lrr=1)
    with pytest.raises(ConfigError) as caught:
        load_run(path)
    lines = str(caught.value).splitlines()
    assert lines[0] == "mine.yaml:" and len(lines) == 4 and all(line.startswith("  ") for line in lines[1:])
    for part in ("federation.quorumm", "seeed", "phases.0.local.lrr"):
        assert part in str(caught.value)


def test_overrides_come_before_the_checks(tmp_path):
    path = write_plan(tmp_path / "mine.yaml", phases__0__local__epochs=None)
    loaded = load_run(path, {"phases.0.local.steps": 9, "federation.quorum": 1, "arms": ["federated", "local"]})
    assert loaded.phases[0].local.steps == 9 and loaded.arms == ("federated", "local")
    with pytest.raises(ConfigError, match="epochs None and steps None"):
        load_run(path)


@pytest.mark.parametrize("cls", [Federation, Evaluation])
@pytest.mark.parametrize("value", [math.nan, "soon"])
def test_numbers_are_numbers(cls, value):
    for name, kind in (("wait_seconds", Federation), ("replicates", Evaluation)):
        if kind is cls:
            with pytest.raises(ConfigError, match=name):
                build(cls, {name: value})


def test_a_simulation_needs_one_source():
    assert build(Simulation, {"store": True}).store
    with pytest.raises(ConfigError, match="exactly one source of images; given: none"):
        build(Simulation, {})


def test_the_hash_changes_with_every_value_and_with_nothing_else():
    assert plan().hash == plan().hash
    others = [
        plan(seed=4),
        plan(phases__0__local__lr=0.1),
        plan(guard={"max_update_norm": 3}),
        plan(checkpoints=3),
    ]
    assert len({plan().hash, *(p.hash for p in others)}) == 5


def test_the_model_of_a_plan_is_the_same_for_everybody():
    one, other = plan().new_model().state(), plan().new_model().state()
    assert all(torch.equal(one[n], other[n]) for n in one)
    assert {n.split("/")[0] for n in one} == {"vision", "head.diagnosis"}
    different = plan(seed=4).new_model().state()
    assert any(not torch.equal(one[n], different[n]) for n in one)
