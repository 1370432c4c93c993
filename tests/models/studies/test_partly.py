"""Films of which some are labelled: who is what, folds by patient, batches of one kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.studies.partly import PartlyLabelled, fold_of
from models.studies.schema import Label
from models.studies.store import Store
from models.studies.views import ImageBatch, LabelledBatch, ViewError
from tests.world import FINDINGS, write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store.open(write_store(tmp_path_factory.mktemp("s") / "store", patients=40, sources=("a",)))


def view(store, rows=None, **changes) -> PartlyLabelled:
    rows = np.arange(len(store)) if rows is None else rows
    return PartlyLabelled(store, rows, 32, "crop", FINDINGS, **changes)


def test_hidden_labels_are_hidden_everywhere_and_the_store_is_as_it_was(store):
    rows = np.arange(0, len(store), 3)
    other = store.without_labels(rows)
    assert (other.labels(FINDINGS)[rows] == Label.UNMENTIONED).all()
    rest = np.setdiff1d(np.arange(len(store)), rows)
    assert np.array_equal(other.labels(FINDINGS)[rest], store.labels(FINDINGS)[rest])
    assert (store.labels(FINDINGS) != Label.UNMENTIONED).all()
    twice = other.without_labels(rest[:5])
    assert (twice.labels(FINDINGS)[np.union1d(rows, rest[:5])] == Label.UNMENTIONED).all()
    assert np.array_equal(other.pixels(3), store.pixels(3))


def test_labelled_films_come_first_and_every_film_once(store):
    hidden = np.arange(len(store))[20:]
    found = view(store.without_labels(hidden))
    assert (found.labelled, found.unlabelled, len(found)) == (20, len(store) - 20, len(store))
    assert sorted(found.rows.tolist()) == list(range(len(store)))
    assert set(found.rows[:20]) == set(range(20))
    assert np.array_equal(found.labels[:20], store.labels(FINDINGS)[found.rows[:20]])
    assert (found.labels[20:] == Label.UNMENTIONED).all()


def test_one_answer_makes_a_film_labelled_and_an_uncertain_one_does_not(store, monkeypatch):
    labels = np.full((len(store), 2), int(Label.UNMENTIONED), dtype=np.int8)
    labels[0] = Label.UNCERTAIN
    labels[1] = [Label.UNCERTAIN, Label.ABSENT]
    labels[2] = [Label.PRESENT, Label.UNMENTIONED]
    monkeypatch.setattr(store, "labels", lambda findings: labels)
    found = view(store)
    assert found.labelled == 2 and set(found.rows[:2]) == {1, 2}


@pytest.mark.parametrize("folds", [1, 2, 3, 5])
def test_folds_are_by_patient_disjoint_growing_and_whole(store, folds):
    hidden = store.without_labels(np.arange(10, len(store)))
    grown = [view(hidden, folds=folds, use=use) for use in range(1, folds + 1)]
    seen: set[int] = set()
    for found in grown:
        assert found.labelled == 10
        now = set(found.rows[10:].tolist())
        assert seen <= now
        new = now - seen
        assert not {store.patients.codes[r] for r in new} & {store.patients.codes[r] for r in seen}
        seen = now
    assert seen == set(range(10, len(store)))
    number = fold_of(store, np.arange(len(store)), folds)
    assert number.min() >= 0 and number.max() <= folds - 1
    by_patient = {code: set(number[store.patients.codes == code]) for code in np.unique(store.patients.codes)}
    assert all(len(f) == 1 for f in by_patient.values())


def test_a_fold_does_not_depend_on_who_else_is_there(store):
    whole = fold_of(store, np.arange(len(store)), 3)
    some = np.array([5, 17, 40])
    assert np.array_equal(fold_of(store, some, 3), whole[some])


def test_batches_are_of_one_kind(store):
    found = view(store.without_labels(np.arange(10, len(store))))
    labelled, unlabelled = found.batch(torch.tensor([0, 3])), found.batch(torch.tensor([12, 30, 11]))
    assert isinstance(labelled, LabelledBatch) and labelled.images.shape == (2, 1, 32, 32)
    assert torch.equal(labelled.labels, torch.from_numpy(found.labels[[0, 3]]))
    assert isinstance(unlabelled, ImageBatch) and not isinstance(unlabelled, LabelledBatch) and len(unlabelled) == 3
    assert np.array_equal(unlabelled.images[1, 0], store.resized(32)[found.rows[30]])
    with pytest.raises(ViewError, match="one kind"):
        found.batch(torch.tensor([0, 30]))


@pytest.mark.parametrize(("rows", "findings", "said"), [([], FINDINGS, "no film"), ([0], ("Hernia",), "Hernia")])
def test_a_view_of_nothing_says_why(store, rows, findings, said):
    with pytest.raises(ViewError, match=said):
        PartlyLabelled(store, np.array(rows, dtype=np.int64), 32, "crop", findings, folds=1, use=0)
