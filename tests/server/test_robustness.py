"""Spoilt films in a run: judged at the end of the reference phase and of the run, written down, drawn; and wrong labels
at the sites. Real ServerApp code, real trainers, in-process grid."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch

from client import virtual
from models.checkpoint import load
from models.evaluation.metrics import Ranking
from models.evaluation.spoilt_films import scores_under
from models.objectives import held_out_view
from server.report import render
from server.rundata import read_run
from strategies.launch import launch
from strategies.virtual import open_store, site_rows
from tests.world import federate, plan_values

STRENGTHS = {"noise": [0.2, 1.0], "blur": [0.1], "contrast": [0.0, 2.0], "brightness": []}


def two_phases() -> list[dict]:
    [phase] = plan_values()["phases"]
    local = {**phase["local"], "epochs": 5}
    return [{**phase, "name": name, "rounds": n, "local": local} for name, n in (("first", 1), ("second", 2))]


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory, tiny_store):
    virtual._warm.clear()
    virtual._opened.clear()
    folder = tmp_path_factory.mktemp("spoilt")
    arms = ["federated", "local"]
    more = {"evaluation__reference": "first", "evaluation__robustness": STRENGTHS, "checkpoints": 0}
    return federate(folder, tiny_store, phases=two_phases(), arms=arms, **more), folder


def rows(found, **where):
    lines = [x for x in found.lines("metrics.jsonl") if "strength" in x]
    return [x for x in lines if all(x[k] == v for k, v in where.items())]


def test_every_kind_strength_arm_and_judged_phase_has_its_rows(spoilt):
    found, _ = spoilt
    wanted = {"noise": [0.0, 0.2, 1.0], "blur": [0.0, 0.1], "contrast": [0.0, 1.0, 2.0]}
    for phase, last in (("first", 1), ("second", 2)):
        for cohort in ("federated", "local"):
            where = {"phase": phase, "cohort": cohort, "finding": "macro", "round": last, "site": "central"}
            for kind, strengths in wanted.items():
                seen = rows(found, **where, metric=f"auroc_under_{kind}")
                assert [x["strength"] for x in seen] == strengths
                assert all(x["n"] > 0 for x in seen)
                lost = rows(found, **where, metric=f"auroc_difference_under_{kind}")
                assert len(lost) == len(strengths) - 1
    assert not rows(found, metric="auroc_under_brightness")
    results = json.loads((found.path / "results.json").read_text())
    assert results["robustness"] == rows(found) and not [x for x in results["final"] if "strength" in x]


def test_untouched_films_have_the_plain_score_and_its_interval(spoilt):
    found, _ = spoilt
    for cohort in ("federated", "local"):
        where = {"phase": "second", "cohort": cohort, "round": 2, "site": "central", "trained_on": None}
        plain = [x for x in found.lines("metrics.jsonl") if x["metric"] == "auroc"]
        plain = {x["finding"]: x for x in plain if all(x[k] == v for k, v in where.items())}
        for kind, strength in (("noise", 0.0), ("contrast", 1.0)):
            for row in rows(found, **where, metric=f"auroc_under_{kind}", strength=strength):
                assert all(row[k] == plain[row["finding"]][k] for k in ("value", "low", "high", "n", "positives"))


def test_the_score_is_that_of_the_models_on_spoilt_films_and_falls(spoilt, tiny_store):
    found, folder = spoilt
    values = {"config": str(folder / "plan.yaml"), "data": str(tiny_store), "out": str(folder / "out")}
    launched = launch(values)
    store = open_store(launched)
    held_out = [r["validation"] for _, r in sorted(site_rows(launched, store).items())]
    objective = launched.plan.phases[-1].objective.build()
    view = held_out_view(objective, store, np.concatenate(held_out))
    model = launched.plan.new_model()
    model.load(None, load(found.checkpoints()[-1] / "model.safetensors"))
    of = {}
    for strength in (0.0, 0.2, 1.0):
        scores = scores_under(model, objective, view, "noise", strength, torch.device("cpu"), 17)
        each = [Ranking(s, y == 1).auroc()[0] for s, y in zip(scores.T.astype(float), view.labels.T)]
        [row] = rows(
            found,
            phase="second",
            cohort="federated",
            metric="auroc_under_noise",
            finding="macro",
            strength=strength,
        )
        of[strength] = row["value"]
        assert row["value"] == pytest.approx(np.mean(each), abs=1e-6)
    assert of[0.0] > of[0.2] > of[1.0] and of[0.0] > of[1.0] + 0.2, "films drown in noise"
    [flat] = rows(
        found, phase="second", cohort="federated", metric="auroc_under_contrast", finding="macro", strength=0.0
    )
    assert flat["value"] < of[0.0] - 0.1, "a flat film still says how bright it was"
    [lost] = rows(
        found,
        phase="second",
        cohort="federated",
        metric="auroc_difference_under_noise",
        finding="macro",
        strength=1.0,
    )
    assert lost["value"] == pytest.approx(of[1.0] - of[0.0]) and lost["high"] < 0


def test_the_report_draws_a_curve_for_each_kind(spoilt):
    found, _ = spoilt
    page = (found.path / "report.html").read_text()
    assert page == render(read_run(found.path))
    [section] = re.findall(r'<section id="robustness".*?</section>', page, re.S)
    drawings = [ElementTree.fromstring(s) for s in re.findall(r"<svg class=\"chart\".*?</svg>", section, re.S)]
    assert [d.get("aria-label").split(".")[0] for d in drawings] == [
        "Macro AUROC under noise",
        "Macro AUROC under blur",
        "Macro AUROC under contrast",
    ]
    noise = drawings[0]
    lines = [e.get("class").split()[1] for e in noise.iter() if e.get("class", "").startswith("line ")]
    assert sorted(lines) == ["earlier", "federated", "local"], "and the reference phase, thin"
    ticks = [e.text for e in noise.iter() if e.get("class") == "tick"]
    assert {"0", "0.2", "1"} <= set(ticks)
    [row] = rows(found, phase="second", cohort="federated", metric="auroc_under_noise", finding="macro", strength=1.0)
    assert f"federated, 1: {row['value']:.3f}" in section and f"{row['high']:.3f}" in section
    assert "federated, end of first" in section


def test_no_robustness_asked_no_section(tmp_path, tiny_store):
    found = federate(tmp_path, tiny_store, phases__0__rounds=1)
    assert 'id="robustness"' not in (found.path / "report.html").read_text()
    assert not rows(found) and json.loads((found.path / "results.json").read_text())["robustness"] == []


def test_labels_turned_round_at_the_sites_turn_the_model_round(tmp_path, tiny_store):
    """All answers of all training films wrong: what is learnt is the opposite, and it is judged by the truth."""
    found = federate(tmp_path, tiny_store, simulation__corrupt_labels=1.0, phases__0__local__epochs=10)
    final = json.loads((found.path / "results.json").read_text())["final"]
    [macro] = [x for x in final if (x["metric"], x["finding"], x["site"]) == ("auroc", "macro", "central")]
    assert macro["value"] < 0.25
    at_sites = [x for x in final if (x["metric"], x["finding"]) == ("auroc", "macro") and x["site"] != "central"]
    assert len(at_sites) == 3 and all(x["value"] < 0.4 for x in at_sites), "the sites' held-out labels are true"
