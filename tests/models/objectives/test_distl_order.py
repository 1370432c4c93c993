"""When self-training distillation shows labelled films, and what it says of its pseudo-labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from models.config import build
from models.loop import LoopConfig
from models.objectives import Schedule
from models.objectives._distl_order import Correction, arrange
from models.objectives._distl_watch import Watch
from models.studies.schema import Label

# -- when labelled films are shown ---------------------------------------------------------------------------------------


class Films:
    def __init__(self, labelled: int, unlabelled: int) -> None:
        self.labelled, self.unlabelled = labelled, unlabelled


def batches(labelled: int, unlabelled: int, correction: dict, number=1, rounds=1, weights=None, **local):
    cfg = build(LoopConfig, {"epochs": 1, "batch_size": 8, "lr": 1e-3, **local})
    g = torch.Generator().manual_seed(number)
    schedule = Schedule(number, rounds, 0, 1)
    return arrange(Films(labelled, unlabelled), cfg, build(Correction, correction), weights, schedule, g)


def split(order, labelled):
    shown = [(at, c.tolist()) for at, c in order.batches]
    return [x for x in shown if x[1][0] >= labelled], [x for x in shown if x[1][0] < labelled]


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("burst", ["batch", "pass"])
@pytest.mark.parametrize(("labelled", "unlabelled"), [(20, 160), (3, 40), (50, 16)])
def test_the_ratio_of_labelled_to_unlabelled_films_holds_at_any_size(ratio, burst, labelled, unlabelled):
    shown = {True: 0, False: 0}
    for number in range(1, 6):
        order = batches(labelled, unlabelled, {"ratio": ratio, "burst": burst}, number, 5)
        for own, truth in zip(split(order, labelled), (False, True)):
            shown[truth] += sum(len(c) for _, c in own)
    unit = labelled if burst == "pass" else min(8, labelled)
    assert shown[False] == 5 * math.ceil(unlabelled / 8) * 8
    assert ratio * shown[False] - unit <= shown[True] <= ratio * shown[False]


@pytest.mark.parametrize(
    ("every", "least", "when"),
    [(4, 1, [4, 8, 12, 16]), (50, 1, [10]), (50, 3, [5, 10, 15]), (50, 0, []), (9, 1, [9, 18])],
)
@pytest.mark.parametrize("rounds", [1, 2])
def test_passes_come_at_their_period_and_none_at_the_start(every, least, when, rounds):
    """In a phase of 20 steps, as one round or as two."""
    whole, steps = [], 20 // rounds
    for number in range(1, rounds + 1):
        order = batches(
            11, 40, {"ratio": None, "every": every, "least": least}, number, rounds, steps=steps, epochs=None
        )
        whole += [((number - 1) * steps + at, c) for at, c in split(order, 11)[1]]
    assert sorted({at for at, _ in whole}) == when
    for at in when:  # a whole pass: every labelled film once, the last batch smaller
        own = [c for step, c in whole if step == at]
        assert [len(c) for c in own] == [8, 3] and sorted(i for c in own for i in c) == list(range(11))


def test_every_pass_has_its_own_order():
    order = batches(8, 400, {"ratio": 1.0})
    passes = [tuple(c) for _, c in split(order, 8)[1]]
    assert len(passes) == 50 and len(set(passes)) == 50 and {tuple(sorted(p)) for p in passes} == {tuple(range(8))}


def test_no_unlabelled_film_twice_before_each_came_once_and_small_sites_have_small_batches():
    order = batches(0, 20, {"ratio": 1.0}, epochs=2)
    flat = [i for _, c in order.batches for i in c.tolist()]
    assert order.steps == 5 and sorted(flat[:20]) == list(range(20))
    tiny = batches(2, 5, {"ratio": 1.0}, epochs=3)
    assert {len(c) for _, c in split(tiny, 2)[0]} == {5} and {len(c) for _, c in split(tiny, 2)[1]} == {2}
    assert all(len(set(c.tolist())) == len(c) for _, c in tiny.batches)


def test_without_correction_or_without_labels_none_is_shown_and_with_labels_alone_they_count():
    assert split(batches(9, 40, {"ratio": None}), 9)[1] == []
    assert split(batches(0, 40, {"ratio": 2.0}), 0)[1] == []
    order = batches(20, 0, {"ratio": 2.0})
    assert order.steps == 3 and [at for at, _ in order.batches] == [0, 1, 2]


def test_weights_draw_the_rare_answer_more_often():
    weights = torch.tensor([10.0] + [0.1] * 19, dtype=torch.float64)
    shown = [i for _, c in split(batches(20, 800, {"ratio": 1.0}, weights=weights), 20)[1] for i in c]
    assert shown.count(0) / len(shown) == pytest.approx(10 / 11.9, abs=0.05)


# -- what it says of its pseudo-labels -------------------------------------------------------------------------------------


class Seen:
    """A view of ``present`` and ``absent`` labelled films, one a patient, and 50 unlabelled ones."""

    def __init__(self, present: int, absent: int, people: int = 50) -> None:
        self.labelled = present + absent
        answers = [[Label.PRESENT]] * present + [[Label.ABSENT]] * absent + [[Label.UNMENTIONED]] * 50
        self.labels = np.array(answers, dtype=np.int8).reshape(-1, 1)
        self.patients = np.concatenate([np.arange(self.labelled), 1000 + np.arange(50) % people])

    def __len__(self):
        return len(self.labels)


def notes(pseudo, view=None, tolerance=0.01, min_cell=5):
    watch = Watch(("Edema",), tolerance)
    for part in torch.as_tensor(pseudo, dtype=torch.float32).view(-1, 1).split(7):
        watch.see(part)
    return {n.metric: n for n in watch.notes(view or Seen(10, 10), min_cell)}


@pytest.mark.parametrize(
    ("pseudo", "view", "collapsed"),
    [
        (np.linspace(0.05, 0.95, 100), Seen(10, 10), False),
        (np.full(100, 0.7), Seen(10, 10), True),  # one answer for all
        (np.full(100, 1e-7), Seen(10, 10), True),
        (np.linspace(0.9, 0.999, 200), Seen(10, 10), True),  # all on one side, and neither answer is rare
        (np.linspace(0.9, 0.999, 200), Seen(0, 0), True),
        (np.linspace(0.0001, 0.3, 200), Seen(2, 198), False),  # a rare finding
        (np.linspace(0.0001, 0.3, 200), Seen(60, 140), True),
        (np.r_[np.full(90, 0.001), np.full(10, 0.98)], Seen(10, 90), False),
    ],
)
def test_collapse_is_told_from_a_rare_finding(pseudo, view, collapsed):
    found = notes(pseudo, view)
    assert ("pseudo_collapsed" in found) is collapsed
    assert found["pseudo_mean"].value == pytest.approx(np.mean(pseudo), abs=1e-5)
    assert found["pseudo_present"].value == pytest.approx(np.mean(np.asarray(pseudo) > 0.5))
    assert found["pseudo_mean"].n == len(pseudo) and found["pseudo_mean"].finding == "Edema"
    assert "pseudo_collapsed" not in notes(pseudo, view, tolerance=0.0)


def test_nothing_is_said_of_a_handful_of_patients():
    assert "pseudo_mean" in notes(np.linspace(0, 1, 50), Seen(10, 10, people=5))
    assert "pseudo_mean" not in notes(np.linspace(0, 1, 50), Seen(10, 10, people=4))


def test_zero_and_a_few_patients_of_a_class_read_alike():
    none, few = (notes(np.linspace(0, 1, 50), Seen(n, 20))["labels_of_one_class"] for n in (0, 4))
    assert none == few and none.n is None and none.positives is None
    assert "labels_of_one_class" not in notes(np.linspace(0, 1, 50), Seen(5, 20))
    assert "labels_of_one_class" not in notes(np.linspace(0, 1, 50), Seen(0, 0))
