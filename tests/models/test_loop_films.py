"""The local loop on films: repeatable bit for bit, in halves, compiled, and it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from models.config import build
from models.loop import LoopConfig, train
from models.model import ModelConfig, initial_model
from models.registry import configure
from models.studies.store import Store
from tests.world import FINDINGS, write_store

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store.open(write_store(tmp_path_factory.mktemp("world") / "store", patients=8))


def learn(
    store,
    *,
    names=("diagnosis", 1, "north"),
    seed=3,
    drop_path=0.2,
    depth=2,
    pool="cls",
    steps=4,
    augment=True,
    **local,
):
    vit = {"name": "vit", "image_size": 32, "patch": 8, "width": 32, "depth": depth, "heads": 2, "pool": pool}
    vit["drop_path"] = drop_path
    settings = {"name": "diagnosis", "findings": FINDINGS, "size": 32, "dropout": drop_path}
    settings |= {"augment": {} if augment else None}
    objective = configure("models.objectives", settings).build()
    model = initial_model(ModelConfig(vision=vit), [objective], seed=0)
    view = objective.open(store, np.arange(len(store)))
    cfg = build(LoopConfig, {"steps": steps, "batch_size": 16, "lr": 0.003, **local})
    done = train(model, objective, view, cfg, round=1, rounds=1, seed=seed, names=names, device=CPU)
    return model.state(), done


def equal(one, other) -> bool:
    return all(torch.equal(one[n], other[n]) for n in one)


def test_the_same_seed_is_the_same_result_bit_for_bit_whatever_runs_beside(store):
    once, _ = learn(store)
    torch.manual_seed(1234)
    torch.rand(17)
    before = torch.get_rng_state()
    again, _ = learn(store)
    assert equal(once, again)
    assert torch.equal(torch.get_rng_state(), before)  # and the loop leaves the outer generator as it was


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 4},
        {"names": ("diagnosis", 2, "north")},
        {"names": ("diagnosis", 1, "south")},
        {"names": ("x", 1, "north")},
    ],
)
def test_another_seed_phase_round_or_site_is_another_stream(store, other):
    assert not equal(learn(store)[0], learn(store, **other)[0])


def test_order_and_augmentation_are_streams_of_their_own(store):
    """Switching the augmentation off must not change which films are drawn."""

    def drawn(augment):
        asked = []
        settings = {"name": "diagnosis", "findings": FINDINGS, "size": 32, "augment": {} if augment else None}
        objective = configure("models.objectives", settings).build()
        vit = {"name": "vit", "image_size": 32, "patch": 8, "width": 32, "depth": 1, "heads": 2}
        model = initial_model(ModelConfig(vision=vit), [objective], seed=0)
        view = objective.open(store, np.arange(len(store)))
        real = view.batch
        view.batch = lambda chosen: (asked.append(chosen.tolist()), real(chosen))[1]
        cfg = build(LoopConfig, {"steps": 2, "batch_size": 8})
        train(model, objective, view, cfg, round=1, rounds=1, seed=3, names=("p", 1, "s"), device=CPU)
        return asked

    assert drawn(True) == drawn(False)


@pytest.mark.parametrize(("precision", "dtype"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_half_precision_runs_in_halves_and_stays_close(store, monkeypatch, precision, dtype):
    seen = set()
    plain_linear = nn.functional.linear

    def linear(x, weight, bias=None):
        out = plain_linear(x, weight, bias)
        seen.add(out.dtype)
        return out

    calm = {"drop_path": 0.0, "augment": False, "steps": 8, "optimizer": "sgd", "lr": 0.05}
    full, reference = learn(store, precision="float32", **calm)
    monkeypatch.setattr(nn.functional, "linear", linear)
    half, done = learn(store, precision=precision, **calm)
    assert seen == {dtype}
    assert all(v.dtype == torch.float32 and torch.isfinite(v).all() for v in half.values())
    assert done.losses["bce_loss"] == pytest.approx(reference.losses["bce_loss"], rel=0.02)
    moved = torch.cat([(half[n] - full[n]).flatten() for n in full]).norm()
    start = learn(store, precision="float32", **{**calm, "lr": 1e-12})[0]
    travelled = torch.cat([(full[n] - start[n]).flatten() for n in full]).norm()
    assert 0 < moved < 0.1 * travelled


def test_the_loop_learns(store):
    calm = {"drop_path": 0.0, "augment": False, "pool": "mean"}
    _, first = learn(store, steps=10, **calm)
    _, later = learn(store, steps=250, **calm)
    assert first.losses["bce_loss"] > 0.6
    assert later.losses["bce_loss"] < 0.7 * first.losses["bce_loss"]


@pytest.mark.slow
def test_compiled_steps_give_the_same_model(store):
    calm = {"drop_path": 0.0, "augment": False, "steps": 3, "depth": 1, "optimizer": "sgd", "lr": 0.05}
    plain, one = learn(store, **calm)
    compiled, other = learn(store, compile=True, **calm)
    assert other.losses["bce_loss"] == pytest.approx(one.losses["bce_loss"], rel=1e-5)
    for name in plain:
        torch.testing.assert_close(compiled[name], plain[name], rtol=1e-4, atol=1e-5)
