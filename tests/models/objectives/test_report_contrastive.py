"""Lessons made of reports, their order, and the loss on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.config import ConfigError, build
from models.evaluation.questions import ReportQuestions
from models.language.canonical import canonical
from models.language.draft import draft
from models.language.labeller import label_text
from models.language.sections import Sections
from models.loop import LoopConfig, train
from models.objectives import Schedule
from models.objectives._report_triples import ReportTriples, as_sentence, homogeneous
from models.objectives.report_contrastive import Config, ReportContrastive
from models.studies.schema import Label
from models.studies.views import ViewError
from tests.models.objectives.towers import REPORTS, report_store, text_model
from tests.reference.text import literal_contrast

START = Schedule(1, 1, 0, 1)


def objective(*tasks: str, **values) -> ReportContrastive:
    wish = {"tasks": [{"name": name} for name in tasks]} if tasks else {}
    return build(Config, {**wish, **values}).build()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return report_store(tmp_path_factory.mktemp("store") / "s", REPORTS)


def lessons(store, *tasks, **values):
    return objective(*tasks, **values).open(store, None)


def told(text: str) -> tuple:
    """What a section says: of each class, and of each its side, degree and size, line by line."""
    read = draft(Sections(findings=text))
    return read.said(), read.attributes()


def test_style_says_the_same_in_other_words_and_its_negative_does_not(store):
    view = lessons(store, "style")
    assert len(view) > 6
    for query, positive, negative in view.triples:
        assert canonical(query) != canonical(positive)
        assert told(query) == told(positive)
        if negative is not None:
            assert canonical(negative) not in (canonical(query), canonical(positive))
            assert told(negative) != told(query)
    assert sum(t.negative is not None for t in view.triples) > len(view) / 2
    originals = {part for pair in REPORTS for part in pair}
    as_written = [(t.query in originals, t.positive in originals) for t in view.triples]
    assert (True, False) in as_written and any(not query for query, _ in as_written)  # both directions


def test_summary_is_findings_to_impression(store):
    view = lessons(store, "summary")
    by_findings = dict(REPORTS)
    assert len(view) == len(REPORTS)
    for query, positive, negative in view.triples:
        assert canonical(positive) == canonical(by_findings[query])
        assert negative is None or canonical(negative) != canonical(positive)


def test_labels_name_what_the_labeller_finds_and_the_negative_turns_one(store):
    view = lessons(store, "labels")
    assert len(view) == len(REPORTS)
    for query, positive, negative in view.triples:
        assert query in {f"{f} {i}" for f, i in REPORTS}
        right, wrong = label_text(positive), label_text(negative)
        turned = {name for name in right if right[name] != wrong[name] and name != "No Finding"}
        assert len(turned) == 1, (positive, negative)


def test_sentences_of_labels():
    said = {
        "Edema": Label.ABSENT,
        "Cardiomegaly": Label.PRESENT,
        "Fracture": Label.UNCERTAIN,
        "Atelectasis": Label.PRESENT,
    }
    assert as_sentence(said) == "There is atelectasis, cardiomegaly. Possibly fracture. There is no edema."
    assert as_sentence({"No Finding": Label.PRESENT, "Edema": Label.ABSENT}) == "Nothing abnormal. There is no edema."
    assert as_sentence({}) == ""


def test_lessons_are_the_same_in_any_store_and_differ_with_the_seed(store, tmp_path):
    again = report_store(tmp_path / "s", list(reversed(REPORTS)))
    assert sorted(lessons(store).triples, key=str) == sorted(lessons(again).triples, key=str)
    assert sorted(lessons(store, seed=1).triples, key=str) != sorted(lessons(store).triples, key=str)


def test_without_negatives_there_are_none(store):
    assert all(t.negative is None for t in lessons(store, negatives=False).triples)


@pytest.mark.parametrize("name", ["abbreviated", "prose"])
def test_only_the_houses_named(store, name):
    view = lessons(store, "style", houses=[name], negatives=False)
    short = [min(t.query, t.positive, key=len) for t in view.triples]
    assert view.triples and all(min(len(t.query), len(t.positive)) == len(s) for t, s in zip(view.triples, short))


def test_rows_and_patients_are_those_of_the_study(store):
    view = lessons(store)
    findings = store.strings("findings")
    for (query, *_), row, patient, task in zip(view.triples, view.rows, view.patients, view.tasks):
        if view.names[task] == "summary":
            assert findings[row] == query
        assert patient == store.patients.codes[row]
    assert view.labels.shape == (len(view), 0)


@pytest.mark.parametrize(
    "odd",
    [
        (None, None),
        ("", " "),
        ("FINDINGS:", None),
        ("FINDINGS: IMPRESSION:", "IMPRESSION:"),
        ("\x00\x01", None),
        ("日本語 🫁", None),
        ("x" * 20_000, None),
        ("clear " * 3000, "Normal."),
    ],
)
def test_odd_reports_break_nothing(tmp_path, odd):
    store = report_store(tmp_path / "s", [*REPORTS, odd])
    wish = objective()
    view = wish.open(store, None)
    model = text_model(wish, lora={"rank": 2}, max_tokens=64)
    for task in range(3):
        chosen = np.flatnonzero(view.tasks == task)
        losses = wish.step(model, view.batch(chosen), START)
        assert all(torch.isfinite(v) for v in losses.values())


def test_a_store_without_a_lesson_says_why(tmp_path):
    store = report_store(tmp_path / "s", [(None, "Unremarkable.")])
    with pytest.raises(ViewError, match="none of the 1 reports gives a lesson for summary"):
        lessons(store, "summary")


def test_batches_of_several_tasks_are_refused(store):
    view = lessons(store, "summary", "labels")
    with pytest.raises(ValueError, match="summary, labels: one task a batch"):
        view.batch([0, len(view) - 1])
    batch = view.batch(torch.tensor([1, 0]))
    assert (
        batch.task == "summary" and batch.queries == (view.triples[1].query, view.triples[0].query) and len(batch) == 2
    )


@given(
    st.lists(st.integers(0, 3), min_size=2, max_size=60),
    st.integers(2, 9),
    st.integers(1, 40),
    st.integers(0, 99),
)
def test_batches_are_of_one_task_and_none_comes_back_before_its_turn(tasks, size, steps, seed):
    tasks = np.array(tasks)
    counts = np.bincount(tasks)
    if counts.max() < 2:
        with pytest.raises(ViewError, match="at least two reports"):
            homogeneous(tasks, size, steps, torch.Generator().manual_seed(seed))
        return
    found = homogeneous(tasks, size, steps, torch.Generator().manual_seed(seed))
    assert len(found) == steps
    for items in found:
        assert len(set(tasks[items].tolist())) == 1 and len(set(items.tolist())) == len(items)
        assert len(items) == size or len(items) == counts[tasks[items[0]]]
    turn = sum(c // size if c >= size else c > 1 for c in counts)
    first = torch.cat(found[:turn]).tolist() if turn <= steps else []
    assert len(set(first)) == len(first)  # one pass: nothing twice
    again = homogeneous(tasks, size, steps, torch.Generator().manual_seed(seed))
    assert all(torch.equal(a, b) for a, b in zip(found, again))


def test_the_loop_trains_on_batches_of_one_task(store):
    wish = objective()
    model = text_model(wish, lora={"rank": 8})
    local = LoopConfig(steps=24, batch_size=4, lr=1e-3, weight_decay=0.0)
    view = wish.open(store, None)
    args = {"round": 1, "rounds": 1, "seed": 0, "names": ("t",), "device": torch.device("cpu")}
    first = train(model, wish, view, LoopConfig(steps=24, batch_size=4, lr=1e-9), **args).losses
    train(model, wish, view, local, **args)
    last = train(model, wish, view, LoopConfig(steps=24, batch_size=4, lr=1e-9), **args).losses
    assert set(first) == {"style_loss", "summary_loss", "labels_loss"}
    assert sum(last.values()) < 0.3 * sum(first.values())


@pytest.mark.parametrize("task", ["style", "summary", "labels"])
def test_the_step_is_the_loop_over_its_texts(store, task):
    told = {"name": task, "instruction": "Find the same", "both_sides": task == "style"}
    wish = objective(tasks=[told])
    model = text_model(wish, lora={"rank": 2})
    batch = wish.open(store, None).batch(range(6))
    hard = [n for n in batch.negatives if n is not None]
    both = "Find the same" if task == "style" else None
    q = model.text.encode(batch.queries, "Find the same").double().tolist()
    p, n = (model.text.encode(texts, both).double().tolist() for texts in (batch.positives, hard))
    expected = literal_contrast(q, p, n, batch.queries, batch.positives, hard, 50.0)
    found = wish.step(model, batch, START)
    assert list(found) == [f"{task}_loss"]
    assert float(found[f"{task}_loss"].detach()) == pytest.approx(expected, rel=1e-4)


def test_all_texts_identical(tmp_path):
    store = report_store(tmp_path / "s", [REPORTS[1]] * 6)
    wish = objective("summary")
    model = text_model(wish, lora={"rank": 2})
    view = wish.open(store, None)
    losses = wish.step(model, view.batch(range(6)), START)
    losses["summary_loss"].backward()
    alone = wish.step(model, view.batch([0]), START)
    # Copies are no negatives: what remains is each lesson against the one error, six times the same.
    error = {t.negative for t in view.triples}
    assert len(error) == 1 and torch.isfinite(losses["summary_loss"])
    assert all(torch.isfinite(p.grad).all() for p in model.components()["text_lora"].parameters())
    assert torch.isfinite(alone["summary_loss"])
    plain = objective("summary", negatives=False)
    nothing = plain.step(model, plain.open(store, None).batch(range(6)), START)
    assert float(nothing["summary_loss"].detach()) == 0
    model.zero_grad()
    nothing["summary_loss"].backward()
    assert all(p.grad.abs().max() == 0 for p in model.components()["text_lora"].parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"tasks": []}, r"tasks \[\]"),
        ({"tasks": [{"name": "style"}, {"name": "style"}]}, "none twice"),
        ({"tasks": [{"name": "translate"}]}, "tasks.0.name"),
        ({"houses": ["gothic"]}, "house 'gothic'"),
        ({"scale": -1.0}, "scale -1.0"),
        ({"trains": []}, "trains: empty"),
        ({"negatives": "some"}, "negatives"),
    ],
)
def test_bad_settings_are_named(values, says):
    with pytest.raises(ConfigError, match=says):
        build(Config, values)


def test_it_trains_what_it_is_told():
    wish = objective(trains=["text_lora", "text_pool", "text_proj"])
    model = text_model(wish, lora={"rank": 2}, pooling="latent", latents=8, latent_heads=4, project=8)
    assert set(wish.trains) == set(model.components())
    with pytest.raises(ConfigError, match="trains text_pool, which this model lacks"):
        text_model(objective(trains=["text_pool"]), lora={"rank": 2})


def test_it_is_judged_by_questions(store):
    wish = objective()
    view = wish.open_held_out(store, None)
    assert isinstance(view, ReportQuestions) and len(view) > len(REPORTS)
    assert ReportTriples is objective().view
