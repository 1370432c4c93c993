"""Results of text towers: means over questions, patients resampled, sites, small cells, chance."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation.questions import TASKS, ReportQuestions
from models.evaluation.results import MACRO
from models.evaluation.textual import BEATS, COLUMNS, METRICS, answers, text_difference, text_results
from models.language.canonical import canonical
from tests.models.objectives.towers import REPORTS, report_store

SIDES = ("left", "right")
MANY = [
    (
        f"The heart is normal. Small {side} pleural effusion measuring {size} mm. No pneumothorax.",
        f"Small {side} effusion, {size} mm.",
    )
    for side in SIDES
    for size in range(11, 25)
]


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    return ReportQuestions(report_store(tmp_path_factory.mktemp("q") / "s", [*REPORTS, *MANY]))


def random_vectors(texts, instruction):
    return np.random.default_rng(canonical(texts[0]) % 2**32).normal(size=(len(texts), 16))


def letters(texts, instruction):
    """A poor encoder that is no chance: counts of letters and figures."""
    return np.array([[text.lower().count(c) + 1e-3 for c in "abcdefghijklmnopqrstuvwxyz0123456789"] for text in texts])


def by_name(rows) -> dict:
    return {(row.metric, row.finding): row for row in rows}


def test_every_metric_is_the_mean_over_its_questions(view):
    scores = answers(letters, view)
    found = by_name(text_results(scores, view, replicates=50))
    assert {metric for metric, _ in found} == set(METRICS)
    for number, task in enumerate(TASKS):
        for metric in ("recall_at_1", "recall_at_5", "recall_at_10", "recall_at_1_diagonal"):
            row = found[metric, task]
            own = scores[view.tasks == number, COLUMNS.index(metric)].astype(np.float64)
            assert row.value == pytest.approx(own.mean(), abs=1e-9) and row.n == len(own)
    for metric in ("mc4", "mc4_ties", "mc4_margin"):
        own = scores[view.tasks == len(TASKS), COLUMNS.index(metric)].astype(np.float64)
        assert found[metric, MACRO].value == pytest.approx(own.mean(), abs=1e-9)
    tasks = [found["recall_at_1", task].value for task in TASKS]
    assert found["recall_at_1", MACRO].value == pytest.approx(np.mean(tasks), abs=1e-12)
    kinds = [kind for question in view.choice.categories for kind in question]
    beats = scores[view.tasks == len(TASKS), -3:].ravel()
    for kind in set(kinds):
        own = [value for value, k in zip(beats, kinds) if k == kind]
        assert found[BEATS, kind].value == pytest.approx(np.mean(own), abs=1e-6) and found[BEATS, kind].n == len(own)


def test_intervals_are_a_literal_bootstrap_over_patients(view):
    """The literal one draws lists of patients; both give the same width within the draw's error."""
    scores = answers(letters, view)
    row = by_name(text_results(scores, view, replicates=2000))["recall_at_1", "abbreviated"]
    own = view.tasks == 0
    values, patients = scores[own, 0], view.patients[own]
    rng, drawn, people = np.random.default_rng(7), [], np.unique(view.patients)
    for _ in range(2000):
        of = [values[patients == p] for p in rng.choice(people, len(people))]
        drawn.append(np.concatenate(of).mean())
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert row.low == pytest.approx(low, abs=0.03) and row.high == pytest.approx(high, abs=0.03)
    assert row.low < row.value < row.high


def test_random_vectors_are_at_chance(view):
    found = by_name(text_results(answers(random_vectors, view), view, replicates=0))
    assert found["recall_at_1", MACRO].value < 0.12
    assert found["mc4", MACRO].value == pytest.approx(0.25, abs=0.2)
    assert found["mc4_ties", MACRO].value == pytest.approx(found["mc4", MACRO].value, abs=1e-9)


def test_an_encoder_that_says_one_thing_is_told_apart_from_one_that_is_right(view):
    found = by_name(text_results(answers(lambda t, i: np.ones((len(t), 4)), view), view, replicates=0))
    assert found["mc4", MACRO].value == 0 and found["mc4_ties", MACRO].value == pytest.approx(0.25)
    assert 0 < found["recall_at_1", MACRO].value < 0.1


def test_instructions_reach_the_side_they_are_of(view):
    seen = []

    def encode(texts, instruction):
        seen.append((texts[0], instruction))
        return np.ones((len(texts), 2))

    answers(encode, view, lambda task: (f"ask {task}", f"give {task}" if task == "abbreviated" else None))
    short, summary = view.searches["abbreviated"], view.searches["summary"]
    assert (short.queries[0], "ask abbreviated") in seen and (short.answers[0], "give abbreviated") in seen
    assert (summary.queries[0], "ask summary") in seen and (summary.answers[0], None) in seen
    assert (view.choice.right[0], None) in seen


def test_the_mean_over_models_is_the_mean_of_their_means(view):
    one, other = answers(letters, view), answers(random_vectors, view)
    both = by_name(text_results(np.stack([one, other]), view, replicates=0))
    for name, row in by_name(text_results(one, view, replicates=0)).items():
        second = by_name(text_results(other, view, replicates=0))[name]
        assert both[name].value == pytest.approx((row.value + second.value) / 2, abs=1e-6)


def test_the_difference_is_paired(view):
    one, other = answers(letters, view), answers(random_vectors, view)
    found = by_name(text_difference(one, other, view, replicates=200))
    row = found["recall_at_1_difference", "abbreviated"]
    a, b = (by_name(text_results(s, view, replicates=0))["recall_at_1", "abbreviated"].value for s in (one, other))
    assert row.value == pytest.approx(a - b, abs=1e-6) and row.low > 0
    same = by_name(text_difference(one, one, view, replicates=200))
    assert same["recall_at_1_difference", MACRO].value == 0 and same["recall_at_1_difference", MACRO].low is None


def test_only_the_questions_chosen_count(view):
    scores = answers(letters, view)
    chosen = np.flatnonzero(view.rows < 8)
    found = by_name(text_results(scores, view, chosen, replicates=50))
    own = scores[chosen][view.tasks[chosen] == 1, 0]
    assert found["recall_at_1", "summary"].value == pytest.approx(own.mean(), abs=1e-6)
    assert found["recall_at_1", "summary"].n == len(own) == 8
    again = text_results(scores, view, np.random.default_rng(0).permutation(chosen), replicates=50)
    assert {k: r.value for k, r in by_name(again).items()} == pytest.approx({k: r.value for k, r in found.items()})


def test_few_patients_are_hidden(view):
    scores = answers(letters, view)
    rows = text_results(scores, view, replicates=50, min_cell=10)
    shown = [row for row in rows if row.value is not None and row.finding != MACRO]
    assert shown and all(row.positive_patients >= 10 for row in shown)
    hidden = [row for row in rows if row.value is None]
    assert hidden and all(row.n is None and "suppressed" in row.reason for row in hidden if row.metric == BEATS)
    nothing = text_results(scores, view, np.flatnonzero(view.rows < 3), replicates=50, min_cell=10)
    assert all(row.value is None for row in nothing)


def test_few_patients_have_no_interval(view):
    rows = text_results(answers(letters, view), view, np.flatnonzero(view.rows < 3), replicates=50)
    row = by_name(rows)["recall_at_1", "summary"]
    assert row.value is not None and row.low is None and "fewer than 5 patients" in row.reason


def test_scores_of_other_questions_are_refused(view):
    with pytest.raises(ValueError, match="of these questions"):
        text_results(np.ones((3, len(COLUMNS))), view)
