"""Plans of self-training: the published settings are the shipped ones, and contradictions are named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from models.config import ConfigError, build
from models.objectives import Schedule
from models.objectives._distl_ramps import alpha
from strategies.plan import RunConfig, load_run
from tests.world import plan_values

ROOT = Path(__file__).resolve().parents[2]
DISTL = {"name": "distl", "findings": ["Edema"], "size": 32, "local_size": 16, "prototypes": 8}


def two(**second) -> list[dict]:
    local = {"epochs": 1}
    return [
        {"name": "initial", "rounds": 1, "objective": {**DISTL, "stage": "initial"}, "local": local},
        {"name": "evolve", "rounds": 1, "objective": {**DISTL, **second}, "local": local},
    ]


def test_the_published_settings_are_the_shipped_plan_and_the_defaults():
    plan = load_run(ROOT / "configs" / "runs" / "distl.yaml")
    initial, *evolve = plan.phases
    assert initial.objective.stage == "initial" and [p.objective.use for p in evolve] == [1, 2, 3]
    assert [p.objective.teacher_start for p in evolve] == ["student", "kept", "kept"]
    same = {dataclasses.replace(p.objective, use=1, teacher_start="student") for p in evolve}
    assert len(same) == 1
    cfg = same.pop()
    assert (cfg.size, cfg.local_size, cfg.local_crops, cfg.prototypes) == (256, 128, 8, 65536)
    assert (cfg.student_temperature, cfg.teacher_temperature, cfg.centre_momentum) == (0.1, 0.04, 0.9)
    assert (cfg.ssl_weight, cfg.momentum, cfg.momentum_end, cfg.correction.every) == (0.5, 0.9995, 1.0, 500)
    assert (cfg.augmented.area, cfg.local.area) == ((0.75, 1.0), (0.2, 0.6))
    assert cfg.augmented.flip == cfg.local.flip == 0
    assert [alpha(cfg, Schedule(e, 5, 0, 10)) for e in range(1, 6)] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    for phase in plan.phases:
        loop = phase.local
        assert (loop.lr, loop.min_lr, loop.weight_decay, loop.batch_size) == (5e-5, 1e-6, 0.01, 16)
        assert (loop.clip_norm, loop.clip, loop.warmup, phase.rounds, loop.epochs) == (3.0, "each", 1, 5, 1)
    assert (plan.model.vision.width, plan.model.vision.patch, plan.model.vision.drop_path) == (384, 8, 0.1)


def test_defaults_are_the_published_settings_but_for_the_correction():
    plan = load_run(ROOT / "configs" / "runs" / "distl.yaml")
    spelt = plan.phases[1].objective
    bare = build(type(spelt), {"findings": spelt.findings, "use": 1, "fit": "squash"})
    assert dataclasses.replace(spelt, correction=bare.correction) == bare


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"phases": two(prototypes=16)}, ["phases.initial.objective.prototypes", "phases.evolve.objective.prototypes"]),
        ({"phases": two(head_hidden=[4])}, ["head_hidden", "differ"]),
        ({"phases": two(head_norm="batch")}, ["head_norm", "differ"]),
        ({"phases": two(findings=["Pneumonia"])}, ["findings", "differ"]),
        ({"phases": two(local_size=12)}, ["phases.evolve.objective.local_size 12", "model.vision.patch 8"]),
        ({"phases": two(), "evaluation__reference": "first"}, ["evaluation.reference 'first'", "initial"]),
        ({"phases": two(), "simulation__labelled": {"a": 1.5}}, ["labelled.a 1.5"]),
        ({"phases": two(), "simulation__server": 0.5}, ["simulation.server 0.5", "no phase with 'server'"]),
        ({"phases": [{**p, "server": {"epochs": 1}} for p in two()]}, ["phases.initial.server", "simulation.server 0"]),
        ({"phases": two(), "simulation__server": 1.0}, ["server 1.0"]),
        ({"phases": two(), "phases__1__local__compile": True}, ["phases.1: local.compile true", "'distl'"]),
    ],
)
def test_contradictions_are_named(changes, said):
    with pytest.raises(ConfigError) as caught:
        build(RunConfig, plan_values(**changes))
    assert all(text in str(caught.value) for text in said), str(caught.value)


def test_a_label_for_a_site_that_is_not_there_is_told(tmp_path):
    from models.studies.store import Store
    from strategies.launch import launch
    from strategies.virtual import site_rows
    from tests.world import write_plan, write_store

    store = write_store(tmp_path / "store", patients=6)
    plan = write_plan(tmp_path / "p.yaml", phases=two(), simulation__labelled={"nowhere": 0.5})
    launched = launch({"config": str(plan), "data": str(store), "out": str(tmp_path)})
    with pytest.raises(
        ConfigError, match=r"simulation\.labelled\.nowhere: no such site; this plan's sites are a, b, c"
    ):
        site_rows(launched, Store.open(store))


def test_a_server_with_films_of_its_own_needs_their_folder(tmp_path):
    import yaml

    from strategies.launch import launch

    values = plan_values(phases=[{**p, "server": {"epochs": 1}} for p in two()])
    del values["simulation"]
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match="trains at the server"):
        launch({"config": str(tmp_path / "p.yaml"), "out": str(tmp_path)})
    assert launch({"config": str(tmp_path / "p.yaml"), "out": str(tmp_path), "data": str(tmp_path)}).data == tmp_path


def test_only_films_that_mention_a_finding_take_part_where_asked(tmp_path):
    import numpy as np

    from models.studies.store import Store
    from strategies.launch import launch
    from strategies.virtual import site_rows
    from tests.world import write_plan, write_store

    whole = Store.open(write_store(tmp_path / "store", patients=6))
    silent = np.arange(0, len(whole), 4)
    store = whole.without_labels(silent)
    rows = {}
    for name, mentions in (("all", []), ("some", ["Edema"]), ("odd", ["Hernia"])):
        plan = write_plan(tmp_path / f"{name}.yaml", phases=two(), simulation__mentions=mentions)
        launched = launch({"config": str(plan), "data": str(tmp_path / "store"), "out": str(tmp_path)})
        if name == "odd":
            with pytest.raises(ConfigError, match=r"simulation\.mentions 'Hernia'"):
                site_rows(launched, store)
            return
        rows[name] = {int(r) for site in site_rows(launched, store).values() for part in site.values() for r in part}
    assert rows["all"] == set(range(len(store))) and rows["some"] == rows["all"] - set(silent.tolist())
