"""Whole rounds of self-training distillation: its settings, and what it says when something is wrong.

The step is held against its literal twin in ``test_distl_step.py``, the pieces against their definitions in
``test_distl_pieces.py``.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.config import ConfigError, build
from models.loop import LoopConfig, NonFiniteLoss, train
from models.model import ModelConfig, furnish, initial_model
from models.objectives import Schedule
from models.objectives.distl import Config
from models.registry import configure
from models.studies.schema import Label
from models.studies.store import Store
from models.studies.views import ViewError
from tests.world import FINDINGS, write_store

CPU = torch.device("cpu")
ALL = ("site.teacher", "site.teacher_prototypes", "site.prototypes", "site.centre")
SMALL = {
    "name": "distl",
    "findings": FINDINGS,
    "size": 32,
    "local_size": 16,
    "local_crops": 3,
    "prototypes": 48,
    "prototype_hidden": 24,
    "bottleneck": 12,
    "head_hidden": [16],
}
STILL = {"area": [1.0, 1.0], "ratio": [1.0, 1.0], "degrees": 0, "autocontrast": 0, "equalise": 0, "blur": 0}
VISION = {"name": "vit", "image_size": 32, "patch": 8, "width": 32, "depth": 2, "heads": 2}
LOCAL = {"epochs": 1, "batch_size": 8, "lr": 1e-3}


# -- whole rounds ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    made = Store.open(write_store(tmp_path_factory.mktemp("s") / "store", patients=30, sources=("a",)))
    return made.without_labels(np.arange(12, len(made)))


def play(store, rows=None, rounds=1, local=None, vision=None, seed=0, **changes):
    """Train some rounds on ``store``; the model, the objective's last notes and the losses of each round."""
    cfg = build(LoopConfig, {**LOCAL, **(local or {})})
    objective = configure("models.objectives", {**SMALL, **changes})
    model = initial_model(build(ModelConfig, {"vision": {**VISION, **(vision or {})}}), [objective.build()], seed)
    furnish(model, objective.build(), seed)
    view = objective.build().open(store, np.arange(len(store)) if rows is None else rows)
    done = [
        train(model, objective.build(), view, cfg, round=r, rounds=rounds, seed=seed, names=("x", r, "a"), device=CPU,
              kept=() if r == 1 else ALL)
        for r in range(1, rounds + 1)
    ]  # fmt: skip
    return model, done


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"targets": "sinkhorn"},
        {"targets": "fixed"},
        {"koleo": 0.1},
        {"unit_prototypes": False},
        {"micro_batch": 3},
        {"balance": True},
        {"ssl_weight": 0.0},
        {"ssl_weight": 1.0},
        {"ssl_until": 0.5},
        {"local_crops": 0},
        {"correction": {"ratio": None}},
        {"correction": {"ratio": None, "every": 2}},
        {"correction": {"views": False}},
        {"teacher": "derived"},
        {"prototypes_travel": True},
        {"prototype_norm": "batch"},
        {"compare": "films"},
        {"compare": "films", "prototype_norm": "batch", "local_crops": 0},
        {"compare": "films", "micro_batch": 3},
        {"compare": "films", "prototypes_travel": True, "prototype_norm": "batch"},
        {"head_hidden": []},
        {"head_norm": "batch"},
        {"teacher_temperature_start": 0.02, "teacher_temperature_rise": 0.3},
        {"stage": "initial"},
        {"stage": "initial", "teacher": "none"},
    ],
    ids=str,
)
def test_every_option_trains(store, changes):
    model, done = play(store, rounds=2, **changes)
    assert all(math.isfinite(v) for d in done for v in d.losses.values())
    assert all(torch.isfinite(t).all() for t in model.state().values())
    names = set().union(*(d.losses for d in done))
    if changes.get("stage") == "initial":
        assert names == {"label_loss"} and done[0].items == 12
        return
    assert ("view_loss" in names) is (changes.get("ssl_weight") != 0.0)
    assert ("pseudo_loss" in names) is (changes.get("ssl_weight") != 1.0)
    assert ("koleo_loss" in names) is ("koleo" in changes)
    centre = model.site["centre"].mean.abs().max() if "centre" in model.site else None
    if changes.get("targets") in ("sinkhorn", "fixed"):
        assert centre == 0
    elif centre is not None:
        assert centre > 0


@pytest.mark.parametrize("vision", [{"channels": 3}, {"drop_path": 0.3}, {"pool": "mean"}, {"positions": "learned"},
                                    {"name": "resnet50", "patch": None, "base": 8}])  # fmt: skip
def test_every_tower_trains(store, vision):
    if vision.get("name") == "resnet50":
        cfg = {"name": "resnet50", "image_size": 32, "base": 8}
        objective = configure("models.objectives", SMALL)
        model = initial_model(build(ModelConfig, {"vision": cfg}), [objective.build()], 0)
        furnish(model, objective.build(), 0)
        before = model.site["teacher"]["vision"].bn1.running_mean.clone()
        view = objective.build().open(store, np.arange(len(store)))
        train(model, objective.build(), view, build(LoopConfig, LOCAL), round=1, rounds=1, seed=0, names=("x",),
              device=CPU)  # fmt: skip
        assert not torch.equal(model.site["teacher"]["vision"].bn1.running_mean, before)  # statistics follow as well
        return
    model, done = play(store, vision=vision)
    assert math.isfinite(done[0].losses["view_loss"])
    assert not model.site["teacher"].training


def test_the_same_seed_gives_the_same_student_and_teacher(store):
    one, two, other = (play(store, seed=s)[0] for s in (1, 1, 2))
    state = lambda m: m.state(m.components())
    assert all(torch.equal(v, state(two)[n]) for n, v in state(one).items())
    assert not torch.equal(one.vision.norm.weight, other.vision.norm.weight)


def test_a_correction_of_the_diagnosis_alone_is_a_supervised_step_at_its_full_weight(store):
    objective = build(Config, {**SMALL, "correction": {"views": False}, "augmented": STILL}).build()
    model = initial_model(build(ModelConfig, {"vision": VISION}), [objective], 0)
    furnish(model, objective, 0)
    view = objective.open(store, np.arange(len(store)))
    labelled = view.batch(np.arange(6))
    (losses,) = objective.step(model, labelled, Schedule(1, 1, 5, 10))
    want = F.binary_cross_entropy_with_logits(objective.logits(model, labelled.images), labelled.labels.float())
    assert set(losses) == {"label_loss"} and losses["label_loss"].item() == pytest.approx(want.item(), rel=1e-5)
    unlabelled = view.batch(np.arange(view.labelled, view.labelled + 4))
    assert set().union(*objective.step(model, unlabelled, Schedule(1, 1, 5, 10))) == {"view_loss", "pseudo_loss"}
    own = {"views": False, "augmented": STILL}  # the views may change while what is corrected does not
    gentle = build(Config, {**SMALL, "correction": own}).build()
    (losses,) = gentle.step(model, labelled, Schedule(1, 1, 5, 10))
    assert losses["label_loss"].item() == pytest.approx(want.item(), rel=1e-5)
    (losses,) = (
        build(Config, {**SMALL, "correction": {"views": False}}).build().step(model, labelled, Schedule(1, 1, 5, 10))
    )
    assert losses["label_loss"].item() != pytest.approx(want.item(), rel=1e-5)  # the control
    published = build(Config, {**SMALL, "augmented": STILL}).build()
    both = list(published.step(model, labelled, Schedule(1, 1, 5, 10)))
    assert both[0]["label_loss"].item() == pytest.approx(want.item() / 2, rel=1e-5) and "view_loss" in both[0]


def test_micro_batches_change_memory_and_not_the_step(store):
    """With drop-path off the halves add up to the whole."""
    whole, halves, chosen = (play(store, local={"steps": 3, "epochs": None}, micro_batch=m)[0] for m in (0, 4, None))
    for name, value in whole.state().items():
        torch.testing.assert_close(halves.state()[name], value, rtol=0, atol=2e-4, msg=name)
        torch.testing.assert_close(chosen.state()[name], value, rtol=0, atol=2e-4, msg=name)


def test_a_processor_takes_some_two_thousand_tokens_at_a_time():
    cfg = lambda **changes: build(Config, {**SMALL, **changes}).build()
    tower = lambda **v: type("Model", (), {"vision": build(ModelConfig, {"vision": {**VISION, **v}}).vision.build()})
    films = lambda side, device="cpu": torch.zeros(2, 16, 1, side, side, device=device)
    assert cfg()._films_at_once(tower(patch=16), films(224)) == 4
    assert cfg()._films_at_once(tower(), films(256)) == 1
    assert cfg()._films_at_once(tower(), films(32)) == 50
    assert cfg()._films_at_once(tower(), films(224, "meta")) == 0
    assert cfg(koleo=0.1)._films_at_once(tower(), films(224)) == 0
    assert cfg(prototype_norm="batch")._films_at_once(tower(), films(224)) == 0
    assert cfg(head_norm="batch")._films_at_once(tower(), films(224)) == 0
    assert cfg(micro_batch=7)._films_at_once(tower(), films(224)) == 7
    resnet = build(ModelConfig, {"vision": {"name": "resnet50", "base": 8}}).vision.build()
    assert cfg()._films_at_once(type("Model", (), {"vision": resnet}), films(224)) == 0  # batch statistics


def test_bfloat16_follows_single_precision(store):
    exact, half = (play(store, local={"precision": p, "steps": 6, "epochs": None}) for p in ("float32", "bfloat16"))
    for name, value in exact[1][0].losses.items():
        assert half[1][0].losses[name] == pytest.approx(value, rel=0.05), name
    assert {t.dtype for t in half[0].state(half[0].components()).values()} == {torch.float32}


def test_the_supervised_stage_learns_and_self_training_keeps_what_was_learnt(store):
    from models.evaluation.diagnosis import probabilities
    from models.evaluation.metrics import auroc
    from models.objectives import held_out_view

    full = Store.open(store.path)
    test = np.arange(len(full) // 2, len(full))
    seen = full.without_labels(test)
    kinds = {"augmented": {"autocontrast": 0, "equalise": 0, "degrees": 3, "area": [0.9, 1.0]}, "head_hidden": []}
    cfg = build(LoopConfig, {"epochs": 40, "batch_size": 8, "lr": 3e-3})
    phases = [
        configure("models.objectives", {**SMALL, **kinds, **c}) for c in ({"stage": "initial"}, {"momentum": 0.9})
    ]
    model = initial_model(build(ModelConfig, {"vision": VISION}), [p.build() for p in phases], 0)
    scores = []
    for number, phase in enumerate(phases):
        furnish(model, phase.build(), 0)
        view = phase.build().open(seen, np.arange(len(full)))
        local = cfg if number == 0 else build(LoopConfig, {"epochs": 6, "batch_size": 8, "lr": 1e-3})
        train(model, phase.build(), view, local, round=1, rounds=1, seed=0, names=(number,), device=CPU)
        held = held_out_view(phase.build(), full, test)
        p = probabilities(model, phase.build(), held, CPU)
        teacher = probabilities(model, phase.build(), held, CPU, logits=phase.build().teacher_logits)
        scores.append([np.mean([auroc(x[:, i], held.labels[:, i]) for i in range(2)]) for x in (p, teacher)])
    (first, _), (student, teacher) = scores
    assert first > 0.8 and student > first - 0.1 and teacher > 0.8


# -- bad input -----------------------------------------------------------------------------------------------------------


def test_a_teacher_that_is_not_finite_begins_anew_from_the_student(store):
    objective = configure("models.objectives", SMALL).build()
    model = initial_model(build(ModelConfig, {"vision": VISION}), [objective], 0)
    furnish(model, objective, 0)
    with torch.no_grad():
        model.site["teacher"]["vision"].norm.weight[0] = math.nan
    view = objective.open(store, np.arange(len(store)))
    done = train(model, objective, view, build(LoopConfig, LOCAL), round=2, rounds=3, seed=0, names=("x",), device=CPU,
                 kept=ALL)  # fmt: skip
    assert [n.metric for n in done.notes if n.metric == "teacher_reset"] == ["teacher_reset"]
    assert torch.isfinite(model.site["teacher"]["vision"].norm.weight).all()


def test_a_student_that_diverges_ends_the_round(store):
    with pytest.raises(NonFiniteLoss, match="loss is not finite"):
        play(store, local={"lr": 1e38, "clip_norm": 0, "optimizer": "sgd", "steps": 4, "epochs": None})


@pytest.mark.parametrize("stage", ["initial", "evolve"])
def test_labels_of_one_class_are_refused_where_they_are_all_there_is(store, stage):
    full = Store.open(store.path)
    labels = full.labels(FINDINGS)
    negative = np.flatnonzero((labels == Label.ABSENT).all(axis=1))
    with pytest.raises(ViewError, match="same answer"):
        configure("models.objectives", {**SMALL, "stage": stage}).build().open(full, negative)


def test_labels_of_one_class_beside_unlabelled_films_are_not_trained_on(store):
    full = Store.open(store.path)
    labels = full.labels(FINDINGS)
    positive = np.flatnonzero((labels == Label.PRESENT).all(axis=1))
    mixed = full.without_labels(np.setdiff1d(np.arange(len(full)), positive))
    _, done = play(mixed)
    assert "label_loss" not in done[0].losses and "pseudo_loss" in done[0].losses
    assert {n.finding for n in done[0].notes if n.metric == "labels_of_one_class"} == set(FINDINGS)
    # One finding of one class, the other of both: corrections go on with the latter alone.
    half = np.flatnonzero(labels[:, 0] == Label.PRESENT)
    linear = {"head_hidden": [], "ssl_weight": 0.0, "alpha_peak": 0.0}
    model, done = play(full.without_labels(np.setdiff1d(np.arange(len(full)), half)), **linear)
    objective = configure("models.objectives", {**SMALL, **linear}).build()
    start = initial_model(build(ModelConfig, {"vision": VISION}), [objective], 0)
    moved = (model.heads["distl"][0].bias - start.heads["distl"][0].bias).abs()
    assert "label_loss" in done[0].losses and moved[0] == 0 < moved[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"local_size": 64}, "local_size 64 and size 32: a local crop cannot be larger"),
        ({"findings": []}, "findings: empty"),
        ({"findings": ["Edema", "Edema"]}, "stands twice"),
        ({"use": 4}, "use 4 and folds 3"),
        ({"use": 0}, "use 0 and folds 3"),
        ({"teacher": "none"}, "stage 'evolve' and teacher 'none'"),
        ({"koleo": 0.1, "micro_batch": 2}, "koleo 0.1 and micro_batch 2"),
        ({"ssl_weight": 1.5}, "ssl_weight 1.5"),
        ({"student_temperature": 0}, "student_temperature 0"),
        ({"teacher_temperature_start": 0.02}, "teacher_temperature_start 0.02"),
        ({"targets": "sinkhorn", "teacher_temperature_start": 0.02, "teacher_temperature_rise": 0.1}, "sinkhorn"),
        ({"prototypes": 0}, "prototypes 0"),
        ({"momentum": 1.1}, "momentum 1.1"),
        ({"head_hidden": [0]}, "head_hidden"),
        ({"correction": {"ratio": 0.5, "every": 10}}, "ratio 0.5 and every 10"),
        ({"correction": {"ratio": 0}}, "ratio 0"),
        ({"correction": {"ratio": None, "every": 0}}, "every 0"),
        ({"correction": {"least": -1}}, "least -1"),
        ({"correction": {"augmented": {}}}, "augmented and views true"),
        ({"local_crops": -1}, "local_crops -1"),
        ({"collapse": 0.7}, "collapse 0.7"),
        ({"prototypes_travel": True, "ssl_weight": 0}, "prototypes_travel"),
        ({"prototype_norm": "batch", "micro_batch": 2}, "prototype_norm 'batch' and micro_batch 2"),
        ({"head_norm": "batch", "micro_batch": 2}, "head_norm 'batch' and micro_batch 2"),
        ({"lamda": 0.5}, "lamda: unknown key"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        build(Config, {**SMALL, **changes})


@pytest.mark.parametrize("start", ["student", "kept"])
def test_what_is_not_kept_begins_as_the_student_and_what_is_kept_stays(start):
    """As in the first evolving phase: the supervised one left a teacher, but no prototypes."""
    objective = configure("models.objectives", {**SMALL, "teacher_start": start}).build()
    model = initial_model(build(ModelConfig, {"vision": VISION}), [objective], 0)
    furnish(model, objective, 0)
    with torch.no_grad():
        for p in model.site.parameters():
            p.add_(1)
        model.site["centre"].mean.add_(1)
    teacher = model.site["teacher"]["vision"].norm.weight.clone()
    objective.begin(model, Schedule(1, 2, 0, 5), {"site.teacher"})
    same = torch.equal(model.site["teacher_prototypes"].prototypes, model.site["prototypes"].prototypes)
    assert same and model.site["centre"].mean.abs().max() == 0
    assert torch.equal(model.site["teacher"]["vision"].norm.weight, teacher) is (start == "kept")
    assert torch.equal(model.site["teacher"]["vision"].norm.weight, model.vision.norm.weight) is (start == "student")
    with torch.no_grad():
        model.site["centre"].mean.add_(1)
    objective.begin(model, Schedule(2, 2, 0, 5), ALL)
    assert model.site["centre"].mean.min() == 1  # it goes on over the rounds of a phase
