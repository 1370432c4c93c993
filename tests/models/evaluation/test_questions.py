"""What is asked of held-out reports."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation.questions import TASKS, ReportQuestions, Search, make_choices, make_search
from models.language.canonical import canonical
from models.language.draft import draft
from models.language.rewriting import means_the_same
from models.language.sections import Sections
from models.language.vocabulary import load
from models.studies.views import ViewError
from tests.models.language.openi import reports, sections
from tests.models.objectives.towers import REPORTS, report_store


def said(text: str) -> tuple:
    read = draft(Sections(impression=text))
    return read.said(), read.attributes()


def test_the_abbreviated_sentence_says_what_the_long_one_says():
    found = make_search(REPORTS, "abbreviated")
    assert len(found.queries) == len(REPORTS)
    for query, answer in zip(found.queries, found.answers):
        assert len(query) < len(answer) and means_the_same(query, answer)
    assert "No pl. effusion or PTX." in found.queries


def test_a_sentence_of_the_most_short_forms_is_taken():
    parts = [("The lungs are clear. No pneumothorax in the right upper lobe.", None)]
    found = make_search(parts, "abbreviated")
    assert found.queries == ["No PTX in RUL."] and found.answers == ["No pneumothorax in the right upper lobe."]


def test_what_is_written_short_is_asked_as_what_is_written_long():
    one = make_search([("No PTX in the RUL.", None)], "abbreviated")
    other = make_search([("No pneumothorax in the right upper lobe.", None)], "abbreviated")
    assert (one.queries, one.answers) == (other.queries, other.answers)


def test_one_short_form_of_several_sentences_has_several_right_answers():
    texts = ["There is no pneumothorax.", "No pneumothorax.", "No effusion.", "no   PNEUMOTHORAX."]
    found = Search(["No PTX.", "No PTX.", "No eff.", "No ptx"], texts, [0, 1, 2, 3], shared=True)
    keys = found.keys
    assert keys[0] == keys[1] == keys[3] != keys[2]
    alone = Search(found.queries, texts, found.items)
    assert alone.keys[1] == alone.keys[3] != alone.keys[0]


def test_chains_of_equal_texts_are_one():
    found = Search(["a", "a", "b", "b", "c"], ["1", "2", "2", "3", "4"], [0] * 5, shared=True)
    assert len(set(found.keys[:4].tolist())) == 1 and len(set(found.keys.tolist())) == 2


def test_summary_is_findings_and_impression():
    parts = [*REPORTS, ("Only findings.", None), (None, "Only impression.")]
    found = make_search(parts, "summary")
    assert list(zip(found.queries, found.answers)) == list(REPORTS) and found.items == list(range(len(REPORTS)))


def test_each_wrong_text_has_an_error_and_all_differ():
    found = make_choices(REPORTS)
    assert len(found.queries) + found.left_out == len(REPORTS) and len(found.queries) >= 6
    for right, wrong, kinds in zip(found.right, found.wrong, found.categories):
        assert len({canonical(text) for text in (right, *wrong)}) == 4 and len(kinds) == 3
        for text, kind in zip(wrong, kinds):  # the labeller reads no height, and "there" from "there; not there"
            assert said(text) != said(right) or kind in ("opposite_sentence", "location")


def test_errors_are_worded_as_none_in_training():
    table = load("wording")
    training = [t for texts in table["asserted"].values() for t in texts["train"]] + list(table["added"]["train"])
    found = make_choices(REPORTS)
    pairs = zip((t for texts in found.wrong for t in texts), (k for kinds in found.categories for k in kinds))
    made = [text for text, kind in pairs if kind in ("false_finding", "device_added")]
    assert len(made) > 5 and not [t for t in training if any(t in text for text in made)]


def test_questions_are_those_of_the_reports_in_any_store(tmp_path):
    one = ReportQuestions(report_store(tmp_path / "a", REPORTS))
    other = ReportQuestions(report_store(tmp_path / "b", list(reversed(REPORTS)), images=2))
    for task in TASKS:
        a, b = one.searches[task], other.searches[task]
        assert sorted(zip(a.queries, a.answers)) == sorted(zip(b.queries, b.answers))
    assert sorted(zip(one.choice.queries, one.choice.wrong)) == sorted(zip(other.choice.queries, other.choice.wrong))


def test_every_question_knows_its_report(tmp_path):
    store = report_store(tmp_path / "s", [*REPORTS, (None, "No acute disease.")], images=2)
    view = ReportQuestions(store, np.arange(2, len(store)))
    texts = [*(q for t in TASKS for q in view.searches[t].answers), *view.choice.right]
    assert len(view) == len(view.tasks) == len(view.rows) == len(view.patients) == len(texts)
    assert view.labels.shape == (len(view), 0)
    impressions = store.strings("impression")
    for task, row, patient, text in zip(view.tasks, view.rows, view.patients, texts):
        assert row >= 2 and patient == store.patients.codes[row]
        if task == 1:
            assert impressions[row] == text


def test_reports_without_a_question_are_refused(tmp_path):
    with pytest.raises(ViewError, match="none of the 2 held-out reports gives a question"):
        ReportQuestions(report_store(tmp_path / "s", [(None, "xxx yyy."), ("zzz.", None)]))


@pytest.mark.parametrize("odd", ["", " ", "FINDINGS:", "\x00\x01", "日本語 🫁", "x" * 20_000, "no effusion " * 1700])
def test_odd_reports_break_nothing(odd):
    parts = [(odd, odd), (odd, None), (None, odd), *REPORTS]
    for task in TASKS:
        make_search(parts, task)
    make_choices(parts)


@pytest.mark.real
def test_real_reports_give_questions(dev_data):
    parts = [(s.findings, s.impression) for s in map(sections, reports(dev_data)[::20])]
    both = sum(bool(f and i) for f, i in parts)
    found = make_choices(parts)
    assert len(found.queries) >= 0.95 * both and found.left_out == both - len(found.queries)
    short = make_search(parts, "abbreviated")
    assert len(short.queries) > 0.8 * len(parts)
    assert len(set(short.keys.tolist())) > 0.4 * len(short.queries)
