"""Self-training in a federation: labels at one site, at some, or at the server; what stays, what travels, what marks a
run. Real ServerApp code, real trainers, in-process grid."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from client import virtual
from client.app import carry
from models.checkpoint import load
from models.evaluation.delong import compare
from server.run import RunFailed
from strategies.messages import Answer, Ask
from strategies.records import from_record
from tests.world import FINDINGS, federate, write_store

OBJECTIVE = {
    "name": "distl",
    "findings": list(FINDINGS),
    "size": 32,
    "local_size": 16,
    "local_crops": 2,
    "augmented": {"autocontrast": 0, "equalise": 0, "degrees": 3, "area": [0.9, 1.0]},
    "prototypes": 64,
    "prototype_hidden": 32,
    "bottleneck": 16,
    "head_hidden": [16],
    "momentum": 0.9,
    "correction": {"ratio": 1.0},
    "alpha_peak": 1.0,
}
LOCAL = {"epochs": 1, "batch_size": 16, "lr": 0.003}


def phases(*kinds: str, rounds: int = 1, **changes) -> list[dict]:
    """``initial`` and ``evolve1`` to ``evolve3``: as many folds as the number says."""
    out = []
    for kind in kinds:
        stage = {"stage": "initial"} if kind == "initial" else {"stage": "evolve", "use": int(kind[-1])}
        start = {"teacher_start": "student" if kind in ("initial", "evolve1") else "kept"}
        local = {**LOCAL, "epochs": 12} if kind == "initial" else LOCAL
        objective = {**OBJECTIVE, **stage, **start, **changes}
        out.append({"name": kind, "rounds": rounds, "objective": objective, "local": local})
    return out


def run(folder, store, *kinds, rounds: int = 1, objective=None, client=None, **changes):
    cold()
    plan = {
        "phases": phases(*kinds, rounds=rounds, **(objective or {})),
        "simulation__labelled": {"a": 0.5},
        "evaluation__reference": kinds[0],
        "model__vision__pool": "cls",
    }
    return federate(folder, store, client, **{**plan, **changes})


def cold() -> None:
    """Forget the warm sites: they are keyed by run name, which the tests reuse, and keep state in the run's folder."""
    virtual._warm.clear()
    virtual._opened.clear()


def lines(found, metric, **where):
    rows = [x for x in found.lines("metrics.jsonl") if x["metric"] == metric]
    return [x for x in rows if all(x[k] == v for k, v in where.items())]


def results(found):
    return json.loads((found.path / "results.json").read_text())


def final_model(found):
    return load(found.checkpoints()[-1] / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def watched():
    """A client that notes every ask and answer."""
    seen: list[tuple[Ask, Answer]] = []

    def client(message, context):
        reply = carry(message, context)
        seen.append((from_record(Ask, message.content), from_record(Answer, reply.content)))
        return reply

    return client, seen


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Three sites of a few patients."""
    return write_store(tmp_path_factory.mktemp("few") / "store", patients=36)


@pytest.fixture(scope="module")
def evolved(tmp_path_factory, few):
    """A whole run with labels at site a alone, every arm, and everything that crossed the wire."""
    client, seen = watched()
    folder = tmp_path_factory.mktemp("evolved")
    kinds = ("initial", "evolve1", "evolve3")
    arms = ["federated", "local", "pooled"]
    return run(folder, few, *kinds, rounds=2, client=client, arms=arms), seen


def test_sites_without_labels_sit_out_the_supervised_phase_and_learn_in_the_others(evolved):
    found, seen = evolved
    assert results(found)["status"] == "completed"
    trained = {}
    for ask, answer in seen:
        if ask.kind == "train" and ask.cohort == "federated":
            assert answer.refusal is None
            trained.setdefault(ask.phase, {}).setdefault(ask.site, []).append(answer.examples)
    assert set(trained["initial"]) == {"a"}
    assert set(trained["evolve1"]) == set(trained["evolve3"]) == {"a", "b", "c"}
    for site in "abc":  # more unlabelled films from phase to phase, the same within one
        one, three = trained["evolve1"][site], trained["evolve3"][site]
        assert one[0] == one[1] < three[0] == three[1]
    assert {x["site"] for x in lines(found, "label_loss", cohort="federated", phase="evolve3")} == {"a"}
    assert {x["site"] for x in lines(found, "view_loss", cohort="federated", phase="evolve3")} == {"a", "b", "c"}


def test_only_the_student_travels_and_the_rest_is_kept_at_each_site(evolved):
    found, seen = evolved
    for ask, answer in seen:
        for message in (ask, answer):
            assert {n.split("/")[0] for n in message.tensors} <= {"vision", "head.distl"}
    assert {n.split("/")[0] for n in final_model(found)} == {"vision", "head.distl"}
    teachers = {}
    for site in "abc":
        kept = sorted((found.path / "sites" / site / "kept").glob("*/*.safetensors"))
        names = {n.split("/")[0] for path in kept for n in load(path)}
        assert names == {"site.teacher", "site.prototypes", "site.teacher_prototypes", "site.centre"}
        teachers[site] = load(kept[-1])["site.teacher/vision.norm.weight"]
    assert not torch.equal(teachers["b"], teachers["c"])


def test_every_round_is_compared_with_the_supervised_model_on_the_same_films(evolved):
    found, _ = evolved
    for cohort in ("federated", "pooled"):
        for phase in ("evolve1", "evolve3"):
            for number in (1, 2):
                where = dict(cohort=cohort, site="central", phase=phase, round=number, finding=FINDINGS[0])
                (gain,), (value,) = lines(found, "auroc_gain", **where), lines(found, "auroc_delong", **where)
                (p,), (auroc,) = lines(found, "auroc_gain_p", **where), lines(found, "auroc", **where)
                assert value["value"] == pytest.approx(auroc["value"], abs=1e-12)
                assert value["low"] <= value["value"] <= value["high"] and value["n"] == auroc["n"]
                before = lines(found, "auroc_delong", **{**where, "phase": "initial", "round": 2})[0]
                assert gain["value"] == pytest.approx(value["value"] - before["value"], abs=1e-12)
                assert 0 <= p["value"] <= 1
    assert not lines(found, "auroc_gain", phase="initial")


def test_the_sites_compare_their_own_student_and_teacher(evolved):
    found, _ = evolved
    for site in "abc":
        student = lines(found, "auroc_delong", cohort="federated", site=site, finding=FINDINGS[0], phase="evolve3")
        assert [x["round"] for x in student] == [0, 1, 2]
        # A teacher is judged once a round has left one behind: from the second ask on.
        teacher = lines(found, "teacher_auroc_delong", cohort="federated", site=site, finding=FINDINGS[0])
        assert [x["round"] for x in teacher if x["phase"] == "evolve3"] == [0, 1, 2]
        gains = lines(found, "teacher_auroc_gain", cohort="federated", site=site, phase="evolve3", finding=FINDINGS[0])
        assert gains and all(x["low"] <= x["value"] <= x["high"] for x in gains)
    pooled = lines(found, "teacher_auroc_delong", cohort="pooled", site="central", phase="evolve3")
    assert {x["round"] for x in pooled} == {0, 1, 2}


def test_the_comparison_is_delongs_on_the_scores_of_both_models(evolved, few):
    """From the outside: the models of the last round and of the reference phase, scored anew."""
    from strategies.launch import launch

    found, _ = evolved
    launched = launch({"config": str(found.path.parents[1] / "plan.yaml"), "data": str(few), "out": "/tmp"})
    from models.evaluation.diagnosis import probabilities
    from models.objectives import held_out_view
    from models.studies.store import Store
    from strategies.virtual import site_rows

    store = Store.open(few)
    rows = np.concatenate([r["validation"] for r in site_rows(launched, store).values()])
    objective = launched.plan.phases[-1].objective.build()
    view, model = held_out_view(objective, store, rows), launched.plan.new_model()
    model.load(None, final_model(found))
    scores = probabilities(model, objective, view, torch.device("cpu"))
    reference = load(found.path / "reference.safetensors")["federated"].numpy()
    positive = view.labels[:, 0] == 1
    want = compare(scores[:, 0], reference[:, 0], positive, view.patients)
    where = dict(cohort="federated", site="central", phase="evolve3", round=2, finding=FINDINGS[0])
    assert lines(found, "auroc_gain", **where)[0]["value"] == pytest.approx(want.difference, abs=1e-6)
    assert lines(found, "auroc_gain_p", **where)[0]["value"] == pytest.approx(want.p, abs=1e-4)


def test_a_site_that_cannot_take_part_in_every_phase_has_no_model_of_its_own(evolved):
    found, _ = evolved
    assert {x["trained_on"] for x in lines(found, "auroc", cohort="local")} == {"a", None}


def test_the_pooled_arm_has_the_same_few_labels(evolved):
    _, seen = evolved
    counts = {
        site: next(a.examples for q, a in seen if q.phase == "initial" and q.site == site and q.kind == "train")
        for site in ("a", "pooled")
    }
    assert counts["a"] == counts["pooled"] > 0


def test_the_teacher_starts_as_the_student_and_then_goes_on(tmp_path, few, monkeypatch):
    """evolve1 begins with the student received; evolve2 and every later round with the site's teacher of the round before."""
    from models.objectives.distl import Distl

    begin, noted = Distl.begin, []

    def note(self, model, schedule, kept):
        before = model.site["teacher"]["head"][0].weight.clone()
        begin(self, model, schedule, kept)
        after = model.site["teacher"]["head"][0].weight
        student = model.heads["distl"][0].weight
        noted.append((self.cfg.use, schedule.round, torch.equal(after, before), torch.equal(after, student)))

    monkeypatch.setattr(Distl, "begin", note)
    run(tmp_path / "x", few, "initial", "evolve1", "evolve2", rounds=2)
    evolve1 = [(k, s) for use, number, k, s in noted if use == 1 and number == 1]
    assert evolve1 and all(student for _, student in evolve1)
    later = [(k, s) for use, number, k, s in noted if use == 2 or (use == 1 and number == 2)]
    assert later and all(kept and not student for kept, student in later)
    noted.clear()
    run(tmp_path / "y", few, "initial", "evolve1", rounds=2, objective={"teacher": "derived"})
    assert all(student for use, _, _, student in noted if use == 1)


@pytest.mark.parametrize("labelled", [{"a": 0.5, "c": 0.2}, None])
def test_labels_at_some_or_at_all_sites(tmp_path, few, labelled):
    client, seen = watched()
    found = run(tmp_path, few, "initial", "evolve3", simulation__labelled=labelled, client=client)
    assert results(found)["status"] == "completed"
    there = {q.site for q, a in seen if q.phase == "initial" and q.kind == "train" and a.refusal is None}
    assert there == ({"a", "c"} if labelled else {"a", "b", "c"})
    if labelled is None:  # nothing is unlabelled: the evolving phase trains on true labels alone
        assert not lines(found, "pseudo_loss") and lines(found, "label_loss", phase="evolve3")


def with_server(kinds, **local):
    made = phases(*kinds)
    for phase in made:
        phase["server"] = {"epochs": 10, "batch_size": 16, "lr": 0.003, **local}
    return made


def test_labels_at_the_server_alone(tmp_path, few):
    client, seen = watched()
    kinds = ("initial", "evolve3")
    found = run(
        tmp_path,
        few,
        *kinds,
        client=client,
        phases=with_server(kinds),
        simulation__labelled={},
        simulation__server=0.3,
    )
    assert results(found)["status"] == "completed"
    assert not [q for q, _ in seen if q.kind == "train" and q.phase == "initial"]  # nobody but the server has labels
    assert {q.site for q, _ in seen if q.kind == "train"} == {"a", "b", "c"}
    assert [x["phase"] for x in lines(found, "server_label_loss")] == ["initial", "evolve3"]
    assert not lines(found, "label_loss")
    auroc = lines(found, "auroc", cohort="federated", site="central", finding="macro", phase="initial")
    assert auroc[-1]["value"] > 0.6


def test_the_servers_patients_are_at_no_site_and_never_judged(tmp_path, few):
    from models.studies.store import Store
    from strategies.launch import launch
    from strategies.virtual import pooled_rows, server_rows, site_rows, unlabelled_rows
    from tests.world import write_plan

    kinds = ("initial", "evolve3")
    plan = write_plan(
        tmp_path / "p.yaml",
        phases=with_server(kinds),
        simulation__server=0.3,
        simulation__labelled={"b": 0.4},
    )
    launched = launch({"config": str(plan), "data": str(few), "out": str(tmp_path)})
    store = Store.open(few)
    sites, own = site_rows(launched, store), server_rows(launched, store)
    codes = store.patients.codes
    for rows in sites.values():
        for split in rows.values():
            assert not set(codes[own]) & set(codes[split])
    everything = np.concatenate([own, *(r for s in sites.values() for r in s.values())])
    assert len(np.unique(everything)) == len(everything) == len(store)
    share = len(np.unique(codes[own])) / len(np.unique(codes[np.concatenate([own, pooled_rows(sites)["train"]])]))
    assert share == pytest.approx(0.3, abs=0.1)
    hidden = unlabelled_rows(launched, store, sites)
    assert set(sites["a"]["train"]) | set(sites["c"]["train"]) <= set(hidden)
    b = np.isin(sites["b"]["train"], hidden)
    assert 0.4 < b.mean() < 0.8 and len(set(codes[sites["b"]["train"][b]]) & set(codes[sites["b"]["train"][~b]])) == 0
    limited = store.without_labels(hidden).labels(FINDINGS)
    assert (limited[hidden] == -2).all()
    rest = np.setdiff1d(np.arange(len(store)), hidden)
    assert np.array_equal(limited[rest], store.labels(FINDINGS)[rest])


def test_same_seed_same_model_and_resume_is_bit_for_bit(tmp_path, few, monkeypatch):
    """The server is cut off after the sites have trained a round that it never saw to its end: they must do it again from
    where it began, teacher, centre and prototypes included."""
    from server.app import FlowerCourier, execute
    from server.folder import RunFolder
    from server.run import Run
    from strategies.launch import launch
    from tests.inprocess import InProcessGrid

    kinds = ("initial", "evolve1", "evolve3")
    # One node, one thread: augmentation draws from the generator of the process, which threads would share.
    whole = run(tmp_path / "whole", few, *kinds, rounds=2, nodes=1)

    class PowerCut(BaseException):
        pass

    judge = Run._judge

    def cut(self, phase, number):
        if (phase.name, number) == ("evolve3", 1):
            raise PowerCut
        judge(self, phase, number)

    monkeypatch.setattr(Run, "_judge", cut)
    with pytest.raises(PowerCut):
        run(tmp_path / "cut", few, *kinds, rounds=2, nodes=1)
    monkeypatch.setattr(Run, "_judge", judge)
    values = {
        "config": str(tmp_path / "cut" / "plan.yaml"),
        "data": str(few),
        "out": str(tmp_path / "cut" / "out"),
    }
    launched = launch(values)
    cold()
    folder = RunFolder.reopen(tmp_path / "cut" / "out" / "run", launched.plan)
    execute(launched, FlowerCourier(InProcessGrid(carry, 1, values)), folder, resume=True)
    assert same(final_model(whole), final_model(folder))
    for site in "abc":
        one, two = (
            load(sorted((r.path / "sites" / site / "kept").glob("*/*.safetensors"))[-1]) for r in (whole, folder)
        )
        assert same(one, two)

    def settled(found):
        skip = ("seconds", "seconds_judge")
        rows = [x for x in found.lines("metrics.jsonl") if x["metric"] not in skip]
        return sorted({json.dumps(x, sort_keys=True) for x in rows})

    assert settled(whole) == settled(folder)


def test_prototypes_travel_where_asked(tmp_path, few):
    client, seen = watched()
    found = run(tmp_path, few, "initial", "evolve3", objective={"prototypes_travel": True}, client=client)
    assert results(found)["status"] == "completed"
    sent = {n.split("/")[0] for q, a in seen if q.phase == "evolve3" for n in a.tensors}
    assert sent == {"vision", "head.distl", "head.prototypes"}
    from strategies.plan import load_run

    start = load_run(tmp_path / "plan.yaml").new_model().state()["head.prototypes/prototypes"]
    assert not torch.equal(start, final_model(found)["head.prototypes/prototypes"])


# -- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [("initial", "evolve3"), ("evolve3",)])
def test_no_labelled_data_anywhere_is_refused_in_words(tmp_path, few, kinds):
    with pytest.raises(RunFailed, match="label"):
        run(tmp_path, few, *kinds, simulation__labelled={}, evaluation__reference=None)


def test_self_supervision_alone_needs_no_label(tmp_path, few):
    found = run(
        tmp_path,
        few,
        "evolve3",
        simulation__labelled={},
        objective={"ssl_weight": 1.0},
        evaluation__reference=None,
    )
    assert results(found)["status"] == "completed"


def test_a_labelled_site_with_one_class_only(tmp_path):
    """It trains on its unlabelled films and is told apart; as the only labelled site it is refused."""
    store = write_store(tmp_path / "store", only_negative="a")
    found = run(tmp_path / "x", store, "initial", "evolve3", simulation__labelled={"a": 0.5, "b": 0.5})
    marks = [m for m in results(found)["marks"] if m["code"] == "labels_of_one_class"]
    assert {m["site"] for m in marks} == {"a"}
    assert "fewer than 2 labelled patients" in marks[0]["text"]
    assert {x["site"] for x in lines(found, "label_loss", phase="initial")} == {"b"}
    assert {x["site"] for x in lines(found, "label_loss", phase="evolve3")} == {"b"}
    with pytest.raises(RunFailed, match="same answer"):
        run(tmp_path / "y", store, "initial", "evolve3", simulation__labelled={"a": 0.5})


def test_a_hospital_that_never_labelled_a_film(tmp_path):
    """Its films train; none of them is judged, and the others' keep their site."""
    store = write_store(tmp_path / "store", patients=36, silent="b")
    found = run(tmp_path / "x", store, "initial", "evolve3", simulation__labelled=None)
    assert results(found)["status"] == "completed"
    assert {x["site"] for x in lines(found, "label_loss", phase="initial")} == {"a", "c"}
    # All films of a and c are labelled: they go on with true labels alone, and b with the teacher's.
    assert {x["site"] for x in lines(found, "pseudo_loss", phase="evolve3")} == {"b"}
    assert {x["site"] for x in lines(found, "auroc", cohort="federated")} == {"a", "c", "central"}
    of = lambda s: lines(found, "auroc", cohort="federated", phase="evolve3", round=1, finding=FINDINGS[0], site=s)[0]
    assert of("a")["n"] + of("c")["n"] == of("central")["n"]
    within = lines(found, "auroc_within_site", phase="evolve3", finding=FINDINGS[0], site="central")
    assert within and within[-1]["n"] == of("central")["n"]


def test_pseudo_labels_that_collapse_mark_the_run(tmp_path, few, monkeypatch):
    from models.objectives.distl import Distl

    begin = Distl.begin

    def spoil(self, model, schedule, kept):
        begin(self, model, schedule, kept)
        if self.evolves:
            with torch.no_grad():
                model.site["teacher"]["head"][-1].bias.fill_(20.0)

    monkeypatch.setattr(Distl, "begin", spoil)
    found = run(tmp_path, few, "initial", "evolve3")
    marks = [m for m in results(found)["marks"] if m["code"] == "pseudo_collapsed"]
    assert {m["site"] for m in marks} == {"a", "b", "c"}
    assert "pseudo-labels" in marks[0]["text"] and marks[0]["event"] == "marked"
    assert {e["event"] for e in found.lines("events.jsonl")} == {"marked"}


def test_a_sound_run_has_no_mark(evolved):
    found, _ = evolved
    assert [m for m in results(found)["marks"] if m["site"] == "a"] == []


def test_a_teacher_that_went_nan_is_started_again_and_the_run_marked(tmp_path, few, monkeypatch):
    from client.keeping import Kept

    put = Kept.put

    def spoil(self, phase, round, tensors):
        if phase == "evolve3" and round == 1 and "sites/b" in str(self.folder):
            tensors = {n: t * float("nan") if n == "site.teacher/head.0.weight" else t for n, t in tensors.items()}
        put(self, phase, round, tensors)

    monkeypatch.setattr(Kept, "put", spoil)
    found = run(tmp_path, few, "initial", "evolve3", rounds=3)
    marks = [m for m in results(found)["marks"] if m["code"] == "teacher_reset"]
    assert [(m["site"], m["round"]) for m in marks] == [("b", 2)]
    assert all(torch.isfinite(t).all() for t in final_model(found).values())
    kept = load(sorted((found.path / "sites" / "b" / "kept").glob("*/*.safetensors"))[-1])
    assert all(torch.isfinite(t).all() for t in kept.values())


def test_a_teacher_that_goes_nan_within_a_round_is_a_refusal_and_is_not_kept(tmp_path, few, monkeypatch):
    from models.objectives.distl import Distl

    after = Distl.after_step

    def spoil(self, model, batch, schedule):
        after(self, model, batch, schedule)
        if self.evolves and schedule.round == 2 and batch.images.float().mean() > 112:  # site c is the brightest
            model.site["teacher"]["head"][0].weight.mul_(float("nan"))

    monkeypatch.setattr(Distl, "after_step", spoil)
    found = run(tmp_path, few, "initial", "evolve3", rounds=3)
    assert ("c", 2, "non_finite_loss") in {(e["site"], e["round"], e["code"]) for e in found.lines("events.jsonl")}
    assert results(found)["status"] == "completed"
    assert lines(
        found, "pseudo_loss", cohort="federated", site="c", round=3
    )  # it came back, with its last good teacher


def test_a_site_with_fewer_films_than_a_batch(tmp_path):
    store = write_store(tmp_path / "big", patients=30, sources=("a", "b"))
    write_store(store, patients=2, sources=("lone",), seed=5)
    found = run(tmp_path / "x", store, "initial", "evolve3", federation__min_sites=3)
    assert results(found)["status"] == "completed"
    steps = lines(found, "steps", site="lone", phase="evolve3")
    assert steps and all(x["value"] >= 1 for x in steps)


def test_a_teacher_never_leaves_even_when_asked_for(tmp_path, few):
    """Policy of the outbox, and the trainer's own refusal."""
    import dataclasses

    from client.outbox import Outbox
    from client.policy import Policy
    from strategies.messages import Code, Kind

    ask = Ask(kind=Kind.TRAIN, run="r", site="a", seed=0, config_hash="", code_hash="", components=("site.teacher",))
    answer = Answer(site="a", tensors={"site.teacher/x": np.zeros(2, np.float32)})
    sent = Outbox(tmp_path / "egress.jsonl", Policy()).send(ask, answer)
    assert sent.refusal.code is Code.POLICY and "does not leave" in sent.refusal.text and not sent.tensors

    refused = []

    def greedy(message, context):
        found = from_record(Ask, message.content)
        if found.kind == "train" and found.phase == "evolve3":
            found = dataclasses.replace(found, components=(*found.components, "site.teacher"))
            refused.append(virtual.handle(found, dict(context.run_config)).refusal)
        return carry(message, context)

    run(tmp_path / "x", few, "initial", "evolve3", client=greedy)
    assert refused and all(r.code is Code.BAD_REQUEST for r in refused)


def test_hospitals_without_any_label_and_a_coordinator_with_a_store(tmp_path, few):
    """The deployment path: sites name themselves and have trainers of their own; the server's store is its ``data``."""
    import yaml
    from flwr.app import Message

    from client.trainer import Site, SiteTrainer
    from models.studies.store import Store
    from server.app import FlowerCourier, execute
    from server.folder import RunFolder
    from strategies.launch import launch
    from strategies.records import to_record
    from tests.inprocess import InProcessGrid
    from tests.world import plan_values

    own = write_store(tmp_path / "own", patients=20, sources=("c",), seed=7)
    blank = Store.open(few).without_labels(np.arange(len(Store.open(few))))
    splits, sources = blank.split({"train": 0.6, "validation": 0.4}), blank.strings("source")
    trainers = {}
    for node, name in ((100, "a"), (101, "b")):
        rows = {split: np.flatnonzero((sources == name) & (splits == split)) for split in ("train", "validation")}
        trainers[node] = SiteTrainer(Site(name, blank, rows, tmp_path / "sites" / name))
    values = plan_values(phases=with_server(("initial", "evolve3")), model__vision__pool="cls")
    del values["simulation"]
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(values))

    def client(message, context):
        ask = from_record(Ask, message.content)
        return Message(to_record(trainers[message.metadata.dst_node_id].handle(ask)), reply_to=message)

    for data, works in ((str(own), True), (str(tmp_path / "blank"), False)):
        if not works:
            write_store(tmp_path / "blank", patients=5, sources=("d",), only_negative="d")
        launched = launch({"config": str(tmp_path / "plan.yaml"), "out": str(tmp_path / "out"), "data": data})
        found = RunFolder.create(tmp_path / "out" / f"run-{works}", launched.plan)
        courier = FlowerCourier(InProcessGrid(client, 2, {}))
        if works:
            execute(launched, courier, found)
            assert results(found)["status"] == "completed"
            assert [x["phase"] for x in lines(found, "server_label_loss")] == ["initial", "evolve3"]
            assert {x["site"] for x in lines(found, "pseudo_loss")} == {"a", "b"}
        else:
            with pytest.raises(RunFailed, match=r"nobody can train it.*same answer"):
                execute(launched, courier, found)
