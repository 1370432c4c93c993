from __future__ import annotations

import pytest
import torch

from models.config import ConfigError, build
from models.evaluation.questions import ReportQuestions
from models.loop import LoopConfig, train
from models.objectives import Schedule
from models.objectives.simcse import Config, SimCse
from models.studies.views import TextBatch
from tests.models.objectives.towers import REPORTS, report_store, text_model
from tests.reference.text import literal_contrast

TEXTS = tuple(f"{findings} {impression}" for findings, impression in REPORTS)
START = Schedule(1, 1, 0, 1)


def objective(**values) -> SimCse:
    return build(Config, values).build()


def batch(texts=TEXTS) -> TextBatch:
    return TextBatch(torch.arange(len(texts)), tuple(texts))


@pytest.mark.parametrize("family", ["llama", "gemma3", "bert"])
def test_it_is_the_loop_over_two_different_passes(monkeypatch, family):
    wish = objective(trains=["text"], instruction="Say it again")
    model = text_model(wish, scratch={"family": family})
    seen = []
    real = model.text.embed_rows
    monkeypatch.setattr(model.text, "embed_rows", lambda rows: seen.append(real(rows)) or seen[-1])
    with torch.no_grad():
        found = wish.step(model, batch(), START)
    one, other = seen[0].double().chunk(2)
    assert not torch.allclose(one, other, atol=1e-3 if family == "llama" else 1e-5)
    expected = literal_contrast(one.tolist(), other.tolist(), [], TEXTS, TEXTS, [], 20.0)
    assert list(found) == ["simcse_loss"] and float(found["simcse_loss"]) == pytest.approx(expected, abs=1e-4)


def test_without_dropout_the_two_would_be_one():
    model = text_model(objective(trains=["text"]))
    rows = model.text.tokens.rows(TEXTS)
    with torch.no_grad():
        one, other = model.text.embed_rows([*rows, *rows]).chunk(2)
    assert torch.allclose(one, other, atol=1e-6)


def test_the_next_evaluation_has_no_dropout():
    wish = objective(trains=["text"])
    model = text_model(wish)
    before = model.text.encode(TEXTS)
    wish.step(model, batch(), START)
    assert torch.equal(model.text.encode(TEXTS), before)
    assert torch.equal(model.eval().text.embed(TEXTS), before)


def test_a_batch_of_copies_teaches_nothing_and_breaks_nothing():
    wish = objective(trains=["text"])
    model = text_model(wish)
    loss = wish.step(model, batch(["Normal chest.", "normal  chest."] * 3), START)["simcse_loss"]
    loss.backward()
    grads = [p.grad for p in model.text.parameters() if p.grad is not None]
    assert float(loss) == 0 and all(g.abs().max() == 0 for g in grads)
    some = wish.step(model, batch([*TEXTS, TEXTS[0]]), START)["simcse_loss"]
    assert torch.isfinite(some) and float(some) > 0


@pytest.mark.parametrize("checkpoint", [False, True])
def test_it_spreads_reports_apart(tmp_path, checkpoint):
    """A fresh trunk puts all reports in one direction; after some steps their cosines are smaller."""
    wish = objective()
    model = text_model(wish, lora={"rank": 8}, checkpoint=checkpoint)
    store = report_store(tmp_path / "s", REPORTS)
    local = LoopConfig(steps=25, batch_size=8, lr=1e-2, weight_decay=0.0)

    def likeness() -> float:
        v = model.text.encode(TEXTS, normalize=True)
        return float((v @ v.T)[~torch.eye(len(v), dtype=torch.bool)].mean())

    before = likeness()
    base = model.text.base_hash
    args = {"round": 1, "rounds": 1, "seed": 0, "names": ("t",), "device": torch.device("cpu")}
    done = train(model, wish, wish.open(store, None), local, **args)
    assert likeness() < before - 0.1 and done.items == len(REPORTS)
    model.text._base_hash = None
    assert model.text.base_hash == base  # the trunk under the adapters has not moved


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"dropout": 0.0}, "dropout 0.0"),
        ({"scale": 0.0}, "scale 0.0"),
        ({"trains": []}, "trains"),
        ({"sections": []}, "sections"),
    ],
)
def test_bad_settings_are_named(values, says):
    with pytest.raises(ConfigError, match=says):
        build(Config, values)


def test_it_is_judged_by_questions(tmp_path):
    wish = objective()
    view = wish.open_held_out(report_store(tmp_path / "s", REPORTS), None)
    assert isinstance(view, ReportQuestions) and len(view) > len(REPORTS)
