"""A whole federation in one process: real ServerApp code, real ClientApp, in-process grid. Broken worlds included."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest
import torch

from client.app import carry
from models.checkpoint import load
from server.courier import NotEnoughSites
from server.run import RunFailed
from strategies.messages import Ask
from strategies.records import from_record
from tests.world import FINDINGS, federate, write_store


def lines(run, metric, **where):
    found = [x for x in run.lines("metrics.jsonl") if x["metric"] == metric]
    return [x for x in found if all(x[k] == v for k, v in where.items())]


def final_model(run):
    return load(run.checkpoints()[-1] / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def ask_of():
    return lambda message: from_record(Ask, message.content)


def test_learns_and_leaves_a_whole_folder(tmp_path, tiny_store):
    run = federate(
        tmp_path,
        tiny_store,
        arms=["federated", "local", "pooled"],
        phases__0__rounds=6,
        phases__0__local={"epochs": 4, "batch_size": 16, "lr": 0.003},
        phases__0__objective__balance=False,
    )
    results = json.loads((run.path / "results.json").read_text())
    assert results["status"] == "completed" and results["rounds"] == 6
    macro = [x["value"] for x in lines(run, "auroc", cohort="federated", site="central", finding="macro")]
    assert len(macro) == 6 and macro[-1] > 0.95
    assert {x["site"] for x in results["gain"]} == {"central", "a", "b", "c"}
    assert (run.path / "report.html").stat().st_size > 2000
    assert len(run.checkpoints()) == 2
    for site in "abc":
        ledger = [json.loads(x) for x in (run.path / "sites" / site / "egress.jsonl").read_text().splitlines()]
        federated = [x for x in ledger if x["cohort"] == "federated" and x["kind"] == "train"]
        assert [x["round"] for x in federated] == [1, 2, 3, 4, 5, 6]
        assert all(x["bytes"] > 0 and len(x["sha256"]) == 64 for x in federated)
    sent = lines(run, "bytes_up", cohort="federated", site="a", round=1)[0]["value"]
    assert sent == federated[0]["bytes"] == sum(t.numel() * 4 for t in final_model(run).values())


def test_same_seed_same_model_whatever_the_nodes_and_arms(tmp_path, tiny_store):
    a = federate(tmp_path / "a", tiny_store, nodes=3)
    b = federate(tmp_path / "b", tiny_store, nodes=1, arms=["federated", "local"])
    c = federate(tmp_path / "c", tiny_store, nodes=3, seed=4)
    assert same(final_model(a), final_model(b))
    assert not same(final_model(a), final_model(c))


def test_federating_one_site_is_its_local_arm(tmp_path, tiny_store):
    """With one site, averaging is the identity: federated and local arms must agree bit for bit."""
    run = federate(
        tmp_path,
        tiny_store,
        arms=["federated", "local"],
        simulation__partition={"by": "hash", "sites": 1},
        federation__min_sites=1,
    )
    federated = {x["finding"]: x["value"] for x in lines(run, "auroc", cohort="federated", site="central", round=2)}
    local = lines(run, "auroc", cohort="local", site="central", round=2)
    assert local and all(x["value"] == federated[x["finding"]] for x in local)


def test_patients_of_the_shared_set_are_never_trained_on(tiny_store, tmp_path):
    from strategies.launch import launch
    from strategies.virtual import open_store, site_rows
    from tests.world import write_plan

    values = {"config": str(write_plan(tmp_path / "p.yaml")), "data": str(tiny_store), "out": str(tmp_path)}
    launched = launch(values)
    store = open_store(launched)
    rows = site_rows(launched, store)
    trained = np.concatenate([r["train"] for r in rows.values()])
    held = np.concatenate([r["validation"] for r in rows.values()])
    codes = store.patients.codes
    assert not set(codes[trained]) & set(codes[held])
    assert len(np.unique(np.concatenate([trained, held]))) == len(store)
    for a in rows:
        for b in rows:
            if a < b:
                assert not set(codes[rows[a]["train"]]) & set(codes[rows[b]["train"]])


@pytest.mark.parametrize("rule", ["mean", "fedprox", "fedavgm", "fedadam", "fedyogi"])
def test_every_rule_runs_and_keeps_float32(tmp_path, tiny_store, rule):
    run = federate(tmp_path, tiny_store, phases__0__rule={"name": rule})
    assert {t.dtype for t in final_model(run).values()} == {torch.float32}
    assert lines(run, "auroc", site="central", finding="macro")[-1]["value"] is not None


def test_resume_equals_an_uninterrupted_run_bit_for_bit(tmp_path, tiny_store, monkeypatch):
    from server.app import FlowerCourier, execute
    from server.folder import RunFolder
    from server.run import Run
    from strategies.launch import launch
    from tests.inprocess import InProcessGrid

    change = dict(phases__0__rounds=4, phases__0__rule={"name": "fedadam"}, arms=["federated", "local"])
    whole = federate(tmp_path / "whole", tiny_store, **change)

    class PowerCut(BaseException):
        pass

    judge = Run._judge

    def cut(self, phase, number):
        if number == 3:
            raise PowerCut
        judge(self, phase, number)

    monkeypatch.setattr(Run, "_judge", cut)
    with pytest.raises(PowerCut):
        federate(tmp_path / "cut", tiny_store, **change)
    monkeypatch.setattr(Run, "_judge", judge)
    values = {
        "config": str(tmp_path / "cut" / "plan.yaml"),
        "data": str(tiny_store),
        "out": str(tmp_path / "cut" / "out"),
    }
    launched = launch(values)
    path = tmp_path / "cut" / "out" / "run"
    folder = RunFolder.reopen(path, launched.plan)
    execute(launched, FlowerCourier(InProcessGrid(carry, 3, values)), folder, resume=True)
    assert same(final_model(whole), final_model(folder))

    def settled(run):
        skip = ("seconds", "seconds_judge")
        found = [x for x in run.lines("metrics.jsonl") if x["metric"] not in skip]
        return sorted(json.dumps(x, sort_keys=True) for x in found)

    assert settled(whole) == settled(folder)
    assert [e["event"] for e in folder.lines("events.jsonl")] == ["resumed"]


# -- broken worlds: the round goes on, the reason is written down, nothing is lost --------------------------------


def broken(site_name, action, ask_of, rounds=(1,)):
    """A client that misbehaves for one site in some rounds of training."""

    def client(message, context):
        ask = ask_of(message)
        if ask.kind == "train" and ask.site == site_name and ask.round in rounds:
            return action(message, context)
        return carry(message, context)

    return client


def events(run):
    return [(e["event"], e["site"], e["code"]) for e in run.lines("events.jsonl")]


def test_nan_loss_at_a_site(tmp_path, tiny_store, monkeypatch):
    from models.objectives.diagnosis import Diagnosis

    step = Diagnosis.step

    def poisoned(self, model, batch, schedule):
        losses = step(self, model, batch, schedule)
        # Only site a's films are this dark (its scanner has no brightness shift).
        return {k: v * float("nan") for k, v in losses.items()} if batch.images.float().mean() < 101 else losses

    monkeypatch.setattr(Diagnosis, "step", poisoned)
    run = federate(tmp_path, tiny_store)
    assert ("refused", "a", "non_finite_loss") in events(run)
    assert all(torch.isfinite(t).all() for t in final_model(run).values())
    assert json.loads((run.path / "results.json").read_text())["status"] == "completed"


def test_site_that_raises(tmp_path, tiny_store, ask_of):
    def explode(message, context):
        raise RuntimeError("patient Jane Roe at /secret/path")

    run = federate(tmp_path, tiny_store, broken("b", explode, ask_of))
    assert ("refused", "b", "reply_lost") in events(run)
    text = "".join(p.read_text() for p in run.path.glob("*.*l") if p.is_file()) + (run.path / "report.html").read_text()
    assert "Jane" not in text and "secret" not in text


def test_trainer_that_raises_sends_a_code_and_no_text(tmp_path, tiny_store, monkeypatch):
    from client.trainer import SiteTrainer

    evaluate = SiteTrainer._evaluate

    def explode(self, *args):
        if self.site.name == "c":
            raise KeyError("Jane Roe")
        return evaluate(self, *args)

    monkeypatch.setattr(SiteTrainer, "_evaluate", explode)
    run = federate(tmp_path, tiny_store)
    assert ("refused", "c", "internal_error") in events(run)
    assert "Jane" not in (run.path / "events.jsonl").read_text()


def test_site_that_sleeps_past_the_deadline(tmp_path, tiny_store, ask_of):
    awake = threading.Event()

    def sleep(message, context):
        awake.wait(20)
        return carry(message, context)

    began = time.monotonic()
    # Every first touch of the models is done before the clock matters: a generous deadline, a very long sleep.
    run = federate(
        tmp_path, tiny_store, broken("b", sleep, ask_of), federation__deadline_seconds=4.0, phases__0__rounds=2
    )
    awake.set()
    assert time.monotonic() - began < 18
    found = run.lines("events.jsonl")
    assert [(e["site"], e["round"], e["code"]) for e in found if e["site"] == "b"][:2] == [
        ("b", 1, "deadline_passed"),
        ("b", 2, "deadline_passed"),
    ]
    assert "still busy" in found[1]["text"]
    assert json.loads((run.path / "results.json").read_text())["status"] == "completed"


def test_below_quorum_changes_nothing_and_three_times_ends_the_run(tmp_path, tiny_store, ask_of):
    def explode(message, context):
        raise RuntimeError

    both = broken("a", explode, ask_of, rounds=range(1, 9))

    def client(message, context):
        return (
            both(message, context)
            if ask_of(message).site == "a"
            else broken("b", explode, ask_of, range(1, 9))(message, context)
        )

    with pytest.raises(RunFailed, match="missed the quorum"):
        federate(tmp_path, tiny_store, client, phases__0__rounds=6)
    from server.folder import RunFolder
    from strategies.plan import load_run

    run = RunFolder(tmp_path / "out" / "run")
    results = json.loads((run.path / "results.json").read_text())
    assert results["status"] == "failed" and "quorum" in results["error"]
    assert (run.path / "report.html").exists()
    assert len([e for e in run.lines("events.jsonl") if e["event"] == "quorum"]) == 3
    start = load_run(tmp_path / "plan.yaml").new_model().state()
    assert same(final_model(run), start), "without quorum the model must stay as it was"


def test_poisoned_replies_are_refused_one_by_one(tmp_path, tiny_store, ask_of):
    """NaN weights, a wrong shape, a claim of 1e12 examples: refused each with its code, and the others go on."""
    from dataclasses import replace

    from flwr.app import Message

    from strategies.messages import Answer
    from strategies.records import to_record

    def spoil(answer, number):
        tensors = dict(answer.tensors)
        first = next(iter(tensors))
        if number == 1:
            tensors[first] = np.full_like(tensors[first], np.nan)
        elif number == 2:
            tensors[first] = tensors[first].reshape(-1)[:1]
        elif number == 3:
            return replace(answer, examples=10**12)
        elif number == 4:
            tensors.pop(first)
        return replace(answer, tensors=tensors)

    def client(message, context):
        reply, ask = carry(message, context), ask_of(message)
        if ask.kind == "train" and ask.site == "a":
            answer = spoil(from_record(Answer, reply.content), ask.round)
            return Message(to_record(answer), reply_to=message)
        return reply

    run = federate(tmp_path, tiny_store, client, phases__0__rounds=4)
    codes = [e["code"] for e in run.lines("events.jsonl")]
    assert codes == ["non_finite_update", "wrong_shape", "absurd_example_count", "wrong_names"]
    assert all(torch.isfinite(t).all() for t in final_model(run).values())


def test_site_without_a_positive_label(tmp_path):
    store = write_store(tmp_path / "store", only_negative="a")
    run = federate(tmp_path, store, arms=["federated", "local"])
    results = json.loads((run.path / "results.json").read_text())
    assert results["status"] == "completed"
    mine = [x for x in results["final"] if x["site"] == "a" and x["metric"] == "auroc" and x["cohort"] == "federated"]
    assert mine and all(x["value"] is None and x["reason"] for x in mine)


def test_site_with_a_single_patient(tmp_path):
    store = write_store(tmp_path / "big", patients=30, sources=("a", "b"))
    write_store(store, patients=1, sources=("lone",), seed=5)
    run = federate(tmp_path, store, arms=["federated", "local"])
    assert json.loads((run.path / "results.json").read_text())["status"] == "completed"


def test_empty_store_and_missing_store(tmp_path):
    from models.config import ConfigError

    (tmp_path / "nothing").mkdir()
    with pytest.raises(RunFailed, match="store"):
        federate(tmp_path / "x", tmp_path / "nothing")
    with pytest.raises(ConfigError, match="no such folder"):
        federate(tmp_path / "y", tmp_path / "not-there")


def test_too_few_sites(tmp_path, tiny_store):
    with pytest.raises(NotEnoughSites, match="3 of at least 5"):
        federate(tmp_path, tiny_store, federation__min_sites=5)


def test_kept_tensors_stay_at_the_site(tmp_path, tiny_store, ask_of):
    """FedBN-like: norms are kept; they never travel, and each site goes on with its own."""
    seen = []

    def client(message, context):
        ask = ask_of(message)
        seen.extend(ask.tensors)
        return carry(message, context)

    run = federate(tmp_path, tiny_store, client, phases__0__exchange={"keep": ["vision/*norm*"]})
    assert seen and not any("norm" in name for name in seen)
    kept = {site: load(next((run.path / "sites" / site / "kept").rglob("*.safetensors"))) for site in "abc"}
    assert all("norm" in name for name in kept["a"])
    assert not same(kept["a"], kept["b"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_the_bytes_on_the_wire(tmp_path, tiny_store, dtype):
    full = federate(tmp_path / "full", tiny_store)
    half = federate(tmp_path / "half", tiny_store, phases__0__exchange={"dtype": dtype})
    one, two = (lines(r, "bytes_up", site="a", round=1)[0]["value"] for r in (full, half))
    assert two * 2 == one
    assert final_model(half)["vision/cls_token"].dtype == torch.float32


def test_stale_code_is_refused_in_words(tmp_path, tiny_store, monkeypatch):
    from client import virtual

    monkeypatch.setattr(virtual, "code_hash", lambda: "other")
    with pytest.raises(RunFailed, match="other source"):
        federate(tmp_path, tiny_store)


def test_policy_refusal_is_an_answer(tmp_path, tiny_store, monkeypatch):
    from client.policy import Policy
    from client.trainer import SiteTrainer

    build = SiteTrainer.__init__

    def strict(self, site):
        if site.name == "b":
            site.policy = Policy(max_epochs=1)
        build(self, site)

    monkeypatch.setattr(SiteTrainer, "__init__", strict)
    run = federate(tmp_path, tiny_store)
    refused = [e for e in run.lines("events.jsonl") if e["site"] == "b"]
    assert refused and refused[0]["code"] == "policy" and "allows 1" in refused[0]["text"]
    assert FINDINGS
