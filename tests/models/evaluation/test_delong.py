"""DeLong's test against the definition over all pairs, a jackknife, and simulated null experiments."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from models.evaluation.delong import aurocs, compare, delong_rows, interval
from models.studies.schema import Label


def psi(x: float, y: float) -> float:
    return 1.0 if x > y else 0.5 if x == y else 0.0


def literal(scores, positive, clusters=None):
    """AUROC and covariance by the definition: every pair, every patient, in plain loops."""
    scores, clusters = np.atleast_2d(scores), range(len(positive)) if clusters is None else clusters
    ten, one, value = [], [], []
    for row in scores:
        x = [s for s, p in zip(row, positive) if p]
        y = [s for s, p in zip(row, positive) if not p]
        ten.append([sum(psi(a, b) for b in y) / len(y) for a in x])
        one.append([sum(psi(a, b) for a in x) / len(x) for b in y])
        value.append(sum(psi(a, b) for a in x for b in y) / len(x) / len(y))
    of_x = [c for c, p in zip(clusters, positive) if p]
    of_y = [c for c, p in zip(clusters, positive) if not p]
    m, n, names = len(of_x), len(of_y), sorted(set(of_x) | set(of_y))
    i10, i01, i = len(set(of_x)), len(set(of_y)), len(names)

    def total(values, owners, theta, name):
        return sum(v - theta for v, c in zip(values, owners) if c == name)

    M = len(scores)
    covariance = np.zeros((M, M))
    for r in range(M):
        for s in range(M):
            a = [total(ten[r], of_x, value[r], c) for c in names]
            b = [total(ten[s], of_x, value[s], c) for c in names]
            c_ = [total(one[r], of_y, value[r], c) for c in names]
            d = [total(one[s], of_y, value[s], c) for c in names]
            s10 = i10 / ((i10 - 1) * m) * sum(p * q for p, q in zip(a, b))
            s01 = i01 / ((i01 - 1) * n) * sum(p * q for p, q in zip(c_, d))
            s11 = i / (i - 1) * sum(p * q for p, q in zip(a, d))
            s11b = i / (i - 1) * sum(p * q for p, q in zip(b, c_))
            covariance[r, s] = s10 / m + s01 / n + (s11 + s11b) / (m * n)
    return np.array(value), covariance


def draw(seed: int, n: int, models: int = 2, levels: int | None = None):
    rng = np.random.default_rng(seed)
    positive = np.arange(n) % 3 == 0
    rng.shuffle(positive)
    scores = rng.normal(size=(models, n)) + 0.8 * positive
    if levels:
        scores = np.round(scores * levels) / levels
    return scores, positive, rng


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(8, 30), st.sampled_from([None, 1, 3]), st.booleans())
def test_it_is_the_definition_over_all_pairs(seed, n, levels, clustered):
    scores, positive, rng = draw(seed, n, 3, levels)
    clusters = rng.integers(0, max(n // 2, 4), n) if clustered else None
    if clustered and min(len(set(clusters[positive])), len(set(clusters[~positive]))) < 2:
        return
    value, covariance = aurocs(scores, positive, clusters)
    want, wanted = literal(scores, positive, None if clusters is None else clusters.tolist())
    np.testing.assert_allclose(value, want, rtol=0, atol=1e-12)
    np.testing.assert_allclose(covariance, wanted, rtol=0, atol=1e-12)
    assert value[0] == pytest.approx(roc_auc_score(positive, scores[0]))


def test_one_image_a_patient_is_the_plain_test_and_more_are_not():
    scores, positive, _ = draw(1, 40)
    plain = aurocs(scores, positive)[1]
    np.testing.assert_allclose(aurocs(scores, positive, np.arange(40)[::-1])[1], plain, rtol=1e-12)
    assert np.abs(aurocs(scores, positive, np.arange(40) // 2)[1] - plain).max() > 1e-5


def test_every_image_twice_doubles_nothing_when_patients_are_told():
    """Duplicated images carry no new evidence: the clustered variance stays, the plain one halves."""
    scores, positive, _ = draw(2, 60, 1)
    once = aurocs(scores, positive)[1][0, 0]
    twice = (np.tile(scores, 2), np.tile(positive, 2))
    assert aurocs(*twice, np.tile(np.arange(60), 2))[1][0, 0] == pytest.approx(once, rel=0.02)
    assert aurocs(*twice)[1][0, 0] == pytest.approx(once / 2, rel=0.05)


def test_the_variance_is_near_the_jackknife():
    scores, positive, _ = draw(3, 150, 1)
    left_out = [roc_auc_score(np.delete(positive, i), np.delete(scores[0], i)) for i in range(150)]
    jackknife = 149 / 150 * np.sum((np.array(left_out) - np.mean(left_out)) ** 2)
    assert aurocs(scores, positive)[1][0, 0] == pytest.approx(jackknife, rel=0.03)


@pytest.mark.parametrize("clustered", [False, True])
def test_p_values_are_uniform_when_there_is_no_difference_and_small_when_there_is(clustered):
    rng, p, covered, plain = np.random.default_rng(5), [], 0, []
    for _ in range(600):
        people = np.repeat(np.arange(60), 2) if clustered else np.arange(120)
        positive = people % 2 == 0
        shared = rng.normal(size=people.max() + 1)[people]  # what two images of a patient have in common
        a, b = (
            0.9 * positive + shared + 0.3 * rng.normal(size=people.max() + 1)[people] + 0.2 * rng.normal(size=120)
            for _ in range(2)
        )
        p.append(compare(a, b, positive, people).p)
        plain.append(compare(a, b, positive).p)
        value, covariance = aurocs(a, positive, people)
        low, high = interval(value[0], covariance[0, 0])
        spread = math.sqrt(2 * (1 + 0.3**2 + 0.2**2))
        covered += low <= 0.5 * (1 + math.erf(0.9 / spread / math.sqrt(2))) <= high
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.025)
    assert np.mean(np.array(p) < 0.5) == pytest.approx(0.5, abs=0.06)
    assert covered / 600 == pytest.approx(0.95, abs=0.03)
    if clustered:  # the control: taking a patient's images for independent finds what is not there
        assert np.mean(np.array(plain) < 0.05) > 0.09
    better = compare(a + 1.5 * positive, b, positive, people)
    assert better.p < 0.01 and better.low > 0


def test_a_difference_with_no_variance_has_no_p_value():
    scores, positive, _ = draw(4, 30, 1)
    found = compare(scores[0], 3 * scores[0] + 1, positive)
    assert (found.difference, found.p) == (0.0, None)
    assert compare(scores[0], -scores[0], positive).p is not None


def test_an_interval_ends_at_zero_and_one():
    assert interval(0.99, 0.01) == (pytest.approx(0.794, abs=1e-3), 1.0)
    assert interval(0.02, 0.01)[0] == 0.0
    assert interval(0.7, 0.0) == (0.7, 0.7)


@pytest.mark.parametrize(
    ("scores", "positive", "clusters", "said"),
    [
        ([1.0, np.nan, 2.0, 3.0], [1, 0, 1, 0], None, "not finite"),
        ([1.0, 2.0, 3.0], [1, 1, 1], None, "no image"),
        ([1.0, 2.0, 3.0], [1, 0, 0], None, "fewer than two"),
        ([1.0, 2.0, 3.0, 4.0], [1, 1, 0, 0], [7, 7, 1, 2], "fewer than two"),
        ([1.0, 2.0], [1, 0, 1], None, "do not fit"),
        ([1.0, 2.0, 3.0, 4.0], [1, 1, 0, 0], [1, 2], "do not fit"),
    ],
)
def test_what_has_no_answer_is_refused(scores, positive, clusters, said):
    with pytest.raises(ValueError, match=said):
        aurocs(scores, positive, clusters)


def test_rows_tell_each_finding_apart_and_hide_small_cells():
    rng = np.random.default_rng(0)
    labels = rng.choice([Label.PRESENT, Label.ABSENT, Label.UNCERTAIN, Label.UNMENTIONED], (80, 3))
    labels[:, 2] = Label.ABSENT
    labels[:3, 2] = Label.PRESENT
    scores, other, people = rng.random((80, 3)), rng.random((80, 3)), np.arange(80) // 2
    rows = delong_rows(scores, labels, people, ("A", "B", "C"), other, min_cell=5)
    assert [(r.metric, r.finding) for r in rows] == [
        (m, f) for f in "AB" for m in ("auroc_delong", "auroc_gain", "auroc_gain_p")
    ]
    for i, finding in enumerate("AB"):
        keep = np.isin(labels[:, i], (1, 0))
        positive = labels[keep, i] == 1
        found = {r.metric: r for r in rows if r.finding == finding}
        assert found["auroc_delong"].value == pytest.approx(roc_auc_score(positive, scores[keep, i]))
        want = compare(scores[keep, i], other[keep, i], positive, people[keep])
        assert (found["auroc_gain"].value, found["auroc_gain_p"].value) == (want.difference, want.p)
        assert found["auroc_gain"].n == keep.sum() and found["auroc_gain"].positives == positive.sum()
    assert len(delong_rows(scores, labels, people, ("A", "B", "C"))) == 3
    same = delong_rows(scores, labels, people, ("A", "B", "C"), scores)
    assert [r.reason for r in same if r.metric == "auroc_gain_p"] == ["both models rank all images alike"] * 3
