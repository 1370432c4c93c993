"""AUROC, average precision and stratified AUROC against sklearn, torchmetrics and the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from models.evaluation.metrics import (
    Ranking,
    auroc,
    average_precision,
    counted,
    paired_images,
    stratified_auroc,
)
from models.studies.schema import Label


def drawn(seed: int, n: int = 300, levels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(np.int8)
    scores = rng.normal(size=n) + labels
    if levels:
        scores = np.round(scores * levels) / levels
    return scores, labels


def pairs_one_by_one(scores, labels, strata, weights) -> float:
    """The definition: weighted share of same-stratum positive-negative pairs in the right order."""
    right = total = 0.0
    for i in np.flatnonzero(labels == 1):
        for j in np.flatnonzero(labels == 0):
            if strata[i] == strata[j]:
                pair = weights[i] * weights[j]
                total += pair
                right += pair * (1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0)
    return right / total


def thresholds_one_by_one(scores, labels, weights) -> float:
    """The definition: sum over distinct thresholds, high to low, of precision times the step in recall."""
    total, before, value = weights[labels == 1].sum(), 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        listed = scores >= threshold
        hits = weights[listed & (labels == 1)].sum()
        if weights[listed].sum() > 0:
            value += (hits - before) / total * hits / weights[listed].sum()
        before = hits
    return value


@pytest.mark.parametrize("levels", [None, 1, 4])
@pytest.mark.parametrize("seed", range(4))
def test_equals_sklearn_and_torchmetrics(seed, levels):
    scores, labels = drawn(seed, levels=levels)
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    # torchmetrics squashes scores outside [0, 1], which would make new ties in float32; ranks are inside.
    ranks = torch.tensor(np.unique(scores, return_inverse=True)[1] / len(scores))
    assert auroc(scores, labels) == pytest.approx(binary_auroc(ranks, torch.tensor(labels)).item(), abs=1e-6)
    assert average_precision(scores, labels) == pytest.approx(
        binary_average_precision(ranks, torch.tensor(labels).long()).item(), abs=1e-6
    )


@pytest.mark.parametrize("levels", [None, 2])
def test_weighted_equals_sklearn_with_sample_weight(levels):
    scores, labels = drawn(7, levels=levels)
    weights = np.random.default_rng(1).integers(0, 4, size=(len(labels), 5)).astype(float)
    ranking = Ranking(scores, labels == 1)
    for column, (area, precision) in enumerate(zip(*ranking.both(weights))):
        w = weights[:, column]
        assert area == pytest.approx(roc_auc_score(labels, scores, sample_weight=w), abs=1e-12)
        assert precision == pytest.approx(average_precision_score(labels, scores, sample_weight=w), abs=1e-12)


small = st.integers(2, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(-3, 3), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=n, max_size=n).filter(lambda y: 0 < sum(y) < len(y)),
        st.lists(st.integers(0, 2), min_size=n, max_size=n),
        st.lists(st.integers(0, 3), min_size=n, max_size=n),
    )
)


@settings(max_examples=150, deadline=None)
@given(small)
def test_equals_the_definition(case):
    scores, labels, strata, weights = (np.array(part) for part in case)
    labels, weights = labels.astype(np.int8), weights.astype(float)
    ones, zeros = np.ones(len(labels)), np.zeros(len(labels), int)
    assert auroc(scores, labels) == pytest.approx(pairs_one_by_one(scores, labels, zeros, ones), abs=1e-12)
    assert average_precision(scores, labels) == pytest.approx(thresholds_one_by_one(scores, labels, ones), abs=1e-12)
    ranking = Ranking(scores, labels == 1, strata=strata)
    if any(len(set(labels[strata == s])) == 2 for s in set(strata)):
        want = pairs_one_by_one(scores, labels, strata, ones)
        assert stratified_auroc(scores, labels, strata) == pytest.approx(want, abs=1e-12)
    else:
        assert np.isnan(stratified_auroc(scores, labels, strata))
    got = ranking.auroc(weights[:, None])[0]
    pairs = sum(
        weights[(strata == s) & (labels == 1)].sum() * weights[(strata == s) & (labels == 0)].sum() for s in set(strata)
    )
    if pairs:
        assert got == pytest.approx(pairs_one_by_one(scores, labels, strata, weights), abs=1e-12)
    else:
        assert np.isnan(got)
    precision = Ranking(scores, labels == 1).average_precision(weights[:, None])[0]
    if weights[labels == 1].sum() and weights[labels == 0].sum():
        assert precision == pytest.approx(thresholds_one_by_one(scores, labels, weights), abs=1e-12)
    else:
        assert np.isnan(precision)


@settings(max_examples=50, deadline=None)
@given(small, st.randoms(use_true_random=False))
def test_order_scale_and_names_of_strata_do_not_matter(case, random):
    scores, labels, strata, _ = (np.array(part) for part in case)
    order = list(range(len(labels)))
    random.shuffle(order)
    one = stratified_auroc(scores, labels.astype(np.int8), strata)
    other = stratified_auroc(np.exp(scores[order]), labels[order].astype(np.int8), 10 - 3 * strata[order])
    assert one == pytest.approx(other, abs=1e-12, nan_ok=True)
    assert auroc(scores, labels.astype(int)) == pytest.approx(1 - auroc(-scores, labels.astype(int)), abs=1e-12)


def test_weights_are_the_same_as_copies():
    scores, labels = drawn(3, n=80, levels=3)
    times = np.random.default_rng(0).integers(0, 4, size=80)
    copied = np.repeat(np.arange(80), times)
    got = Ranking(scores, labels == 1).both(times[:, None].astype(float))[:, 0]
    assert got == pytest.approx(
        [auroc(scores[copied], labels[copied]), average_precision(scores[copied], labels[copied])], abs=1e-12
    )


def test_rows_share_the_weight_of_a_patient():
    scores, labels = drawn(3, n=60)
    patients = np.arange(60) // 3
    weights = np.random.default_rng(0).integers(0, 3, size=(20, 7)).astype(float)
    by_patient = Ranking(scores, labels == 1, rows=patients).both(weights)
    np.testing.assert_allclose(by_patient, Ranking(scores, labels == 1).both(weights[patients]), atol=1e-12)


def test_recognising_the_hospital_earns_nothing_within_hospitals():
    rng = np.random.default_rng(0)
    site = rng.integers(0, 4, 2000)
    labels = (rng.random(2000) < np.array([0.05, 0.2, 0.5, 0.8])[site]).astype(np.int8)
    hospital_only = np.array([0.1, 0.2, 0.5, 0.8])[site]
    assert auroc(hospital_only, labels) > 0.75
    assert stratified_auroc(hospital_only, labels, site) == 0.5
    # And the other way: disease seen well, but sites' scores shifted against their prevalence.
    disease = labels * 2.0 + rng.normal(size=2000) - site * 3.0
    assert auroc(disease, labels) < 0.5
    assert stratified_auroc(disease, labels, site) > 0.85


def test_only_present_and_absent_count():
    scores, labels = drawn(5, n=50)
    odd = np.concatenate([labels, np.array([Label.UNCERTAIN, Label.UNMENTIONED] * 20, np.int8)])
    noise = np.concatenate([scores, np.random.default_rng(2).normal(size=40)])
    assert auroc(noise, odd) == auroc(scores, labels)
    assert average_precision(noise, odd) == average_precision(scores, labels)
    strata = np.arange(90) % 2
    assert stratified_auroc(noise, odd, strata) == stratified_auroc(scores, labels, strata[:50])


def test_one_class_and_nothing_are_nan():
    for labels in ([1, 1], [0, 0], [-1, -2], []):
        scores = np.linspace(0, 1, len(labels))
        assert np.isnan(auroc(scores, labels))
        assert np.isnan(average_precision(scores, labels))
        assert np.isnan(stratified_auroc(scores, labels, np.zeros(len(labels), int)))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"1 of 2 scores are not finite"):
        auroc([0.1, float("nan")], [0, 1])
    with pytest.raises(ValueError, match=r"label code 2 is not known; allowed: 1 \(PRESENT\)"):
        counted([0, 2])
    with pytest.raises(ValueError, match="vectors of one length"):
        Ranking([0.1, 0.2], [True])
    with pytest.raises(ValueError, match="several strata"):
        Ranking([0.1, 0.2], [True, False], strata=[0, 1]).average_precision()


def test_paired_images_are_those_of_sites_with_both_classes():
    assert paired_images([1, 0, 1, 1, 0], [5, 5, 6, 6, 7]).tolist() == [True, True, False, False, False]
    assert paired_images([], []).tolist() == []
