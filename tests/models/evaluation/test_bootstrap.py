"""The interval: what it draws, that it covers, that it must draw patients, and that it is quick."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from models.evaluation.bootstrap import FEWEST, WeightedMean, interval, mean_replicates, replicate, resamples
from models.evaluation.metrics import Ranking

TRUE_AUROC = 0.7602499389  # Phi(1 / sqrt(2)): unit-variance normals one apart


def study(rng, patients: int, copies: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, positives, patients; every image of a patient is the same image."""
    positive = rng.random(patients) < 0.4
    scores = rng.normal(size=patients) + positive
    owner = np.repeat(np.arange(patients), copies)
    return scores[owner], positive[owner], owner


def covered(trials: int, patients: int, copies: int, by_patient: bool) -> float:
    hits = 0
    for trial in range(trials):
        scores, positive, owner = study(np.random.default_rng(trial), patients, copies)
        unit = owner if by_patient else np.arange(len(owner))
        ranking = Ranking(scores, positive, rows=unit)
        found = interval(replicate([ranking.auroc], unit.max() + 1, 400, seed=trial)[0][0])
        hits += found.low <= TRUE_AUROC <= found.high
    return hits / trials


def test_draws_are_multinomial_over_patients_and_repeat():
    weights = np.concatenate(list(resamples(50, 600, seed=3)), axis=1)
    assert weights.shape == (50, 600)
    assert (weights.sum(axis=0) == 50).all()
    assert weights.mean() == 1.0
    assert weights.var() == pytest.approx(1 - 1 / 50, rel=0.05)
    assert np.cov(weights[0], weights[1])[0, 1] == pytest.approx(-1 / 50, abs=0.12)
    np.testing.assert_array_equal(weights, np.concatenate(list(resamples(50, 600, seed=3)), axis=1))
    assert (weights != np.concatenate(list(resamples(50, 600, seed=4)), axis=1)).any()


def test_fewer_replicates_are_the_first_of_more():
    more = np.concatenate(list(resamples(31, 500, seed=0)), axis=1)
    few = np.concatenate(list(resamples(31, 37, seed=0)), axis=1)
    np.testing.assert_array_equal(more[:, :37], few)


def test_equals_a_literal_bootstrap_with_copied_images():
    rng = np.random.default_rng(0)
    owner = rng.integers(0, 40, 90)
    owner = np.unique(owner, return_inverse=True)[1]
    positive = rng.random(90) < 0.4
    scores = np.round(rng.normal(size=90) + positive, 1)
    ranking = Ranking(scores, positive, rows=owner)
    people = owner.max() + 1
    got = replicate([ranking.auroc], people, 60, seed=9)[0][0]
    for column, times in enumerate(np.concatenate(list(resamples(people, 60, seed=9)), axis=1).T):
        copies = [np.flatnonzero(owner == p) for p in range(people) for _ in range(int(times[p]))]
        chosen = np.concatenate(copies)
        assert got[column] == pytest.approx(roc_auc_score(positive[chosen], scores[chosen]), abs=1e-12)


def test_one_class_resamples_are_left_out_and_counted():
    positive = np.zeros(30, bool)
    positive[:2] = True
    ranking = Ranking(np.linspace(1, 0, 30) * np.where(np.arange(30) % 2, 1, -1), positive)
    values = replicate([ranking.auroc], 30, 2000, seed=0)[0][0]
    found = interval(values)
    assert found.left_out == np.isnan(values).sum()
    assert found.left_out / 2000 == pytest.approx((28 / 30) ** 30, abs=0.03)
    assert found.low is not None


def test_no_interval_rather_than_a_false_one():
    assert interval(np.full(100, 1.0)).reason == "no interval: every resample gives the same value"
    assert interval(np.r_[np.full(50, np.nan), np.arange(50.0)]).reason == (
        "no interval: 50 of 100 resamples lack a class"
    )
    assert interval(np.empty(0)).low is None
    assert interval(np.arange(101.0)).low == pytest.approx(2.5)
    assert interval(np.arange(101.0)).high == pytest.approx(97.5)


def test_weighted_mean_equals_numpy():
    rng = np.random.default_rng(0)
    rows = np.arange(30) // 2
    values, weights = rng.random(30), rng.integers(0, 3, (15, 4)).astype(float)
    got = WeightedMean(values, rows, 15)(weights)[0]
    want = [np.average(values, weights=weights[rows, c]) for c in range(4)]
    np.testing.assert_allclose(got, want, atol=1e-12)
    assert np.isnan(WeightedMean(values, rows, 15)(np.zeros((15, 1)))).all()


def test_mean_over_findings_keeps_its_meaning_when_one_is_undefined():
    values = np.array([[0.9, 0.8, np.nan], [0.5, 0.6, 0.6]])
    points = np.array([0.85, 0.55])
    np.testing.assert_allclose(mean_replicates(values, points), [0.7, 0.7, 0.75])
    assert np.isnan(mean_replicates(np.array([[np.nan]]), np.array([0.5]))).all()


def test_interval_covers_and_image_wise_interval_does_not():
    """Negative control: with four copies of every image, drawing images halves the width of the interval."""
    assert covered(150, patients=120, copies=4, by_patient=True) > 0.89
    assert covered(150, patients=120, copies=4, by_patient=False) < 0.80


def test_coverage_is_95_percent():
    """1000 studies: the standard error of the coverage is 0.7 %, so 93.0-97.0 is three of them."""
    assert covered(1000, patients=200, copies=1, by_patient=True) == pytest.approx(0.95, abs=0.02)


def test_copies_of_images_change_nothing():
    scores, positive, owner = study(np.random.default_rng(5), 100, 1)
    one = replicate([Ranking(scores, positive, rows=owner).auroc], 100, 50, seed=1)[0]
    scores, positive, owner = study(np.random.default_rng(5), 100, 3)
    np.testing.assert_allclose(one, replicate([Ranking(scores, positive, rows=owner).auroc], 100, 50, seed=1)[0])


def test_few_positive_patients_are_where_the_interval_fails():
    """Why ``FEWEST``: with three positives the nominal 95 % covers far less; with fifteen it holds."""

    def share(positives: int) -> float:
        hits = 0
        for trial in range(200):
            rng = np.random.default_rng(trial)
            positive = np.arange(150) < positives
            ranking = Ranking(rng.normal(size=150) + positive, positive)
            found = interval(replicate([ranking.auroc], 150, 200, seed=trial)[0][0])
            hits += found.low is not None and found.low <= TRUE_AUROC <= found.high
        return hits / 200

    assert share(FEWEST - 2) < 0.8 < 0.88 < share(3 * FEWEST)
