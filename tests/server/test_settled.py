"""A phase that leaves a component alone builds on what the phases before agreed on, at every site, warm or restarted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from client import trainer, virtual
from client.settled import settle
from models.checkpoint import load
from models.config import build
from models.model import ModelConfig, initial_model
from models.registry import configure
from strategies.messages import Ask, Kind, ProtocolError
from strategies.wire import to_wire
from tests.models.objectives.towers import REPORTS, report_store
from tests.world import federate

TEXT = {
    "scratch": {"width": 16, "heads": 2, "depth": 1, "vocabulary": 1200},
    "project": 8,
    "max_tokens": 32,
    "batch_tokens": 1024,
}


def phase(name, *trains):
    return {
        "name": name,
        "rounds": 1,
        "objective": {"name": "simcse", "trains": list(trains)},
        "local": {"steps": 2, "batch_size": 4, "lr": 0.05},
    }


@pytest.mark.parametrize("restarted", [False, True])
def test_every_site_has_the_agreed_trunk(tmp_path, monkeypatch, restarted):
    report_store(tmp_path / "store", REPORTS * 3)
    virtual._warm.clear()
    virtual._opened.clear()
    seen = []

    def watch(ask, model, trains):
        if ask.phase == "second" and restarted:
            for value in model.state(["text"]).values():
                value.zero_()  # whatever a process that has just started would hold
        before = {name: value.clone() for name, value in model.state(["text"]).items()}
        rest = settle(ask, model, trains)
        seen.append((ask, rest, before, {name: value.clone() for name, value in model.state(["text"]).items()}))
        return rest

    monkeypatch.setattr(trainer, "settle", watch)
    run = federate(
        tmp_path,
        tmp_path / "store",
        nodes=1,
        model={"text": TEXT},
        phases=[phase("first", "text", "text_proj"), phase("second", "text_proj")],
        checkpoints=0,
        evaluation__every=10,
        simulation__partition={"by": "hash", "sites": 3},
        simulation__fractions={"train": 0.8, "validation": 0.2, "test": 0.0},
    )
    agreed = {
        name: value for name, value in load(run.checkpoints()[0] / "model.safetensors").items() if name[:5] == "text/"
    }
    later = [parts for parts in seen if parts[0].phase == "second" and parts[0].kind is Kind.TRAIN]
    assert len(later) == 3 and agreed
    assert any(not torch.equal(before[name], agreed[name]) for _, _, before, _ in later for name in agreed)
    for ask, rest, _, after in later:
        assert ask.settled == ("text",)
        assert {name.split("/")[0] for name in rest.tensors} == {"text_proj"}
        assert all(torch.equal(after[name], agreed[name]) for name in agreed)
    assert all(ask.settled == () for ask, *_ in seen if ask.phase == "first")
    ends = load(run.checkpoints()[-1] / "model.safetensors")
    assert all(torch.equal(ends[name], agreed[name]) for name in agreed)


@pytest.fixture(scope="module")
def asked():
    objective = configure("models.objectives", {"name": "simcse", "trains": ["text_proj"]}).build()
    model = initial_model(build(ModelConfig, {"text": TEXT}), [objective], 0)
    tensors, bf16 = to_wire(model.state(["text", "text_proj"]))
    ask = Ask(Kind.TRAIN, "r", "s", 0, "", "", components=("text_proj",), settled=("text",), bf16=bf16, tensors=tensors)
    return ask, model


@pytest.mark.parametrize(
    "change",
    [
        lambda ask: replace(ask, settled=("text", "text_proj")),
        lambda ask: replace(ask, settled=("vision",)),
        lambda ask: replace(ask, tensors={**ask.tensors, "text/none.weight": next(iter(ask.tensors.values()))}),
        lambda ask: replace(ask, tensors={n: a[..., None] if n[:5] == "text/" else a for n, a in ask.tensors.items()}),
    ],
)
def test_what_does_not_fit_is_refused(asked, change):
    ask, model = asked
    before = {name: value.clone() for name, value in model.state().items()}
    assert settle(ask, model, ("text_proj",)).tensors.keys() == model.state(["text_proj"]).keys()
    with pytest.raises(ProtocolError):
        settle(change(ask), model, ("text_proj",))
    assert all(torch.equal(before[name], value) for name, value in model.state().items())
