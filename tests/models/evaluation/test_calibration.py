"""Calibration error, its chance level and the Brier score against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from models.evaluation.calibration import (
    IMAGES_PER_BIN,
    brier,
    calibration_error_floor,
    equal_mass_bins,
    expected_calibration_error,
    reliability,
)


def outcomes(rng: np.random.Generator, probabilities: np.ndarray) -> np.ndarray:
    return (rng.random(len(probabilities)) < probabilities).astype(np.int8)


def test_bins_hold_equal_numbers():
    p = np.random.default_rng(0).random(1003)
    assert np.bincount(equal_mass_bins(p)).tolist() == pytest.approx([1003 / 15] * 15, abs=1)
    assert equal_mass_bins(np.sort(p)).tolist() == sorted(equal_mass_bins(p))
    assert equal_mass_bins(p[: 3 * IMAGES_PER_BIN]).max() == 2
    assert set(equal_mass_bins(p[:5])) == {0}
    assert equal_mass_bins([0.2] * 30 + [0.7] * 30).tolist() == [1] * 30 + [4] * 30  # the middle of six bins


def test_equals_a_literal_loop():
    rng = np.random.default_rng(1)
    p = rng.random(450)
    y = outcomes(rng, p**2)
    order = sorted(range(450), key=lambda i: p[i])
    want = 0.0
    for b in range(15):
        members = order[b * 30 : (b + 1) * 30]
        want += abs(sum(p[i] for i in members) / 30 - sum(int(y[i]) for i in members) / 30) * 30 / 450
    assert expected_calibration_error(p, y) == pytest.approx(want, abs=1e-12)


def test_brier_equals_sklearn():
    rng = np.random.default_rng(2)
    p = rng.random(200)
    y = outcomes(rng, p)
    assert brier(p, y) == pytest.approx(brier_score_loss(y, p), abs=1e-12)
    assert brier(np.r_[p, 0.3], np.r_[y, -1]) == brier(p, y)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=80),
    st.randoms(use_true_random=False),
)
def test_bounds_and_order(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    p, y = np.array([r[0] / 8 for r in rows]), np.array([int(r[1]) for r in rows])
    q, z = np.array([r[0] / 8 for r in shuffled]), np.array([int(r[1]) for r in shuffled])
    error = expected_calibration_error(p, y)
    assert 0 <= error <= 1
    assert error == pytest.approx(expected_calibration_error(q, z), abs=1e-12)
    # Jensen: no binning can show more squared error than the images themselves.
    assert error**2 <= brier(p, y) + 1e-12
    table = reliability(p, y)
    assert table.count.sum() == len(rows) and (table.count > 0).all()
    assert (np.diff(table.probability) > 0).all()


def test_known_values():
    constant = np.full(400, 0.25)
    y = np.zeros(400, np.int8)
    y[:300] = 1
    assert expected_calibration_error(constant, y) == pytest.approx(0.5)
    assert expected_calibration_error(y.astype(float), y) == 0
    assert np.isnan(expected_calibration_error([0.5], [-1]))
    assert np.isnan(calibration_error_floor([0.5], [-2]))
    assert np.isnan(brier([], []))


def test_the_floor_is_what_a_calibrated_model_shows():
    rng = np.random.default_rng(3)
    for n in (150, 1500):
        p = 1 / (1 + np.exp(1 - rng.normal(size=n)))
        seen = [expected_calibration_error(p, outcomes(rng, p)) for _ in range(300)]
        assert calibration_error_floor(p, np.zeros(n)) == pytest.approx(np.mean(seen), rel=0.05)
        biased = np.clip(p + 0.2, 0, 1)
        shown = expected_calibration_error(biased, outcomes(rng, p))
        assert shown > 1.5 * calibration_error_floor(biased, p > 1)


def test_logits_are_refused():
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got -1 to 2; apply a sigmoid"):
        expected_calibration_error([-1.0, 2.0], [0, 1])
