"""evaluate(), paired_difference() and suppression, as the lead of a run calls them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from models.evaluation.metrics import stratified_auroc
from models.evaluation.protocol import METRICS, evaluate, paired_difference
from models.evaluation.results import MACRO, Result, suppress

FINDINGS = ("Edema", "Pneumonia", "Fracture")


@pytest.fixture
def cohort():
    rng = np.random.default_rng(0)
    n = 400
    patients = rng.integers(0, 180, n) * 7 + 3
    site = patients % 3
    labels = (rng.random((n, 3)) < [0.3, 0.5, 0.1]).astype(np.int8)
    labels[rng.random((n, 3)) < 0.2] = -2
    probabilities = 1 / (1 + np.exp(1 - rng.normal(size=(n, 3)) - 1.5 * (labels == 1)))
    return probabilities, labels, patients, site


def by_name(rows: list[Result]) -> dict[tuple[str, str], Result]:
    return {(r.metric, r.finding): r for r in rows}


def test_values_equal_sklearn_on_the_images_that_count(cohort):
    p, y, patients, site = cohort
    rows = by_name(evaluate(p, y, patients, FINDINGS, site, replicates=50))
    for f, finding in enumerate(FINDINGS):
        keep = y[:, f] >= 0
        truth, score = y[keep, f], p[keep, f]
        assert rows["auroc", finding].value == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
        assert rows["average_precision", finding].value == pytest.approx(
            average_precision_score(truth, score), abs=1e-12
        )
        assert rows["brier", finding].value == pytest.approx(brier_score_loss(truth, score), abs=1e-12)
        assert rows["auroc_within_site", finding].value == pytest.approx(
            stratified_auroc(score, truth, site[keep]), abs=1e-12
        )
        assert rows["auroc", finding].n == keep.sum()
        assert rows["auroc", finding].positives == truth.sum()
        assert rows["auroc", finding].positive_patients == len(set(patients[keep][truth == 1]))
        for metric in ("auroc", "auroc_within_site", "average_precision", "brier"):
            row = rows[metric, finding]
            assert row.low < row.value < row.high
        assert rows["ece", finding].low is None
        assert 0 < rows["ece_floor", finding].value < 0.2


def test_macro_is_the_mean_and_its_interval_is_narrower(cohort):
    p, y, patients, site = cohort
    rows = by_name(evaluate(p, y, patients, FINDINGS, site, replicates=400))
    for metric in METRICS:
        values = [rows[metric, f].value for f in FINDINGS]
        assert rows[metric, MACRO].value == pytest.approx(np.mean(values))
    widths = [rows["auroc", f].high - rows["auroc", f].low for f in FINDINGS]
    macro = rows["auroc", MACRO]
    assert macro.high - macro.low < np.mean(widths)
    assert macro.positives == sum(rows["auroc", f].positives for f in FINDINGS)
    assert macro.n == (y >= 0).any(axis=1).sum()


def test_same_seed_same_rows_and_order_of_images_does_not_matter(cohort):
    p, y, patients, site = cohort
    one = evaluate(p, y, patients, FINDINGS, site, replicates=60, seed=5)
    order = np.random.default_rng(1).permutation(len(p))
    other = evaluate(p[order], y[order], patients[order], FINDINGS, site[order], replicates=60, seed=5)
    for a, b in zip(one, other, strict=True):
        assert (a.metric, a.finding, a.n, a.positives) == (b.metric, b.finding, b.n, b.positives)
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), abs=1e-12)
    assert one == evaluate(p, y, patients, FINDINGS, site, replicates=60, seed=5)
    assert one != evaluate(p, y, patients, FINDINGS, site, replicates=60, seed=6)


def test_one_site_has_no_within_site_row(cohort):
    p, y, patients, _ = cohort
    assert "auroc_within_site" not in {r.metric for r in evaluate(p, y, patients, FINDINGS, replicates=0)}
    lone = evaluate(p, y, patients, FINDINGS, np.zeros(len(p), int), replicates=0)
    assert "auroc_within_site" not in {r.metric for r in lone}
    assert all(r.low is None and r.high is None for r in lone)


def test_reasons(cohort):
    p, y, patients, site = cohort
    p, y = p.copy(), y.copy()
    y[:, 0] = -1
    y[y[:, 1] == 1, 1] = 0
    y[:, 2] = 1
    rows = by_name(evaluate(p, y, patients, FINDINGS, site, replicates=20))
    assert [rows["auroc", f].reason for f in FINDINGS] == ["no labelled image", "no positive", "no negative"]
    assert rows["auroc", "Edema"].n == 0
    assert rows["ece", "Edema"].reason == "no labelled image"
    assert rows["brier", "Pneumonia"].value is not None
    assert rows["auroc", MACRO].reason == "no finding has a value"
    y[:, 2] = (site == 1).astype(np.int8)
    rows = by_name(evaluate(p, y, patients, FINDINGS, site, replicates=20))
    assert rows["auroc_within_site", "Fracture"].reason == "no site with both a positive and a negative"
    assert rows["auroc", MACRO].reason == "mean of 1 of 3 findings"
    assert rows["auroc", MACRO].value == rows["auroc", "Fracture"].value


def test_a_diverged_model_has_reasons_not_an_exception(cohort):
    p, y, patients, site = cohort
    p = p.copy()
    p[y[:, 1] >= 0, 1] = np.nan
    p[y[:, 2] < 0, 2] = np.nan  # only where no label counts: no harm
    rows = by_name(evaluate(p, y, patients, FINDINGS, site, replicates=20))
    n = (y[:, 1] >= 0).sum()
    for metric in METRICS:
        assert rows[metric, "Pneumonia"].reason == f"{n} of {n} scores are not finite"
        assert rows[metric, "Fracture"].value is not None
    gain = by_name(paired_difference(p, p, y, patients, FINDINGS, replicates=20))
    assert "not finite" in gain["auroc_difference", "Pneumonia"].reason


def test_few_patients_and_perfect_separation_have_no_interval():
    y = np.zeros((40, 2), np.int8)
    y[:8, 0] = 1
    y[:8, 1] = 1
    p = 0.2 + 0.5 * y + np.linspace(0, 0.1, 40)[:, None]
    patients = np.arange(40) // 2 + 100  # eight positive images, four persons
    rows = by_name(evaluate(p, y, patients, FINDINGS[:2], replicates=30))
    assert rows["auroc", "Edema"].value == 1
    assert rows["auroc", "Edema"].reason == "no interval: fewer than 5 patients in one class"
    assert rows["brier", "Edema"].low is not None
    y[8:10, 1] = 1
    rows = by_name(evaluate(p, y, patients, FINDINGS[:2], replicates=200))
    assert rows["auroc", "Pneumonia"].positive_patients == 5
    assert rows["auroc", "Pneumonia"].low is not None
    apart = by_name(evaluate(0.1 + 0.8 * y, y, patients, FINDINGS[:2], replicates=30))
    assert apart["auroc", "Pneumonia"].reason == "no interval: every resample gives the same value"
    alone = by_name(evaluate(p, y, np.full(40, 5), FINDINGS[:2], replicates=30))
    assert alone["auroc", MACRO].value is not None and alone["auroc", MACRO].low is None
    assert alone["brier", "Edema"].low is None


def test_empty_set_of_images():
    rows = evaluate(np.empty((0, 3)), np.empty((0, 3), np.int8), np.empty(0, int), FINDINGS, replicates=10)
    assert {r.value for r in rows} == {None}
    assert {r.reason for r in rows} == {"no labelled image", "no finding has a value"}


def test_small_cells_count_patients_and_stay_out_of_the_mean(cohort):
    p, y, patients, _ = cohort
    y = y.copy()
    few = np.flatnonzero(patients == patients[0])
    y[:, 2] = 0
    y[few, 2] = 1  # several images, one person
    shown = by_name(evaluate(p, y, patients, FINDINGS, replicates=30, min_cell=5))
    hidden = shown["auroc", "Fracture"]
    assert hidden.reason == "suppressed: fewer than 5"
    assert (hidden.value, hidden.low, hidden.n, hidden.positives, hidden.positive_patients) == (None,) * 5
    mean = np.mean([shown["auroc", f].value for f in FINDINGS[:2]])
    assert shown["auroc", MACRO].value == pytest.approx(mean)
    assert shown["auroc", MACRO].positives == sum(shown["auroc", f].positives for f in FINDINGS[:2])
    assert by_name(evaluate(p, y, patients, FINDINGS, replicates=0))["auroc", "Fracture"].value is not None


def test_suppress_after_the_fact_hides_the_mean_too(cohort):
    p, y, patients, _ = cohort
    y = y.copy()
    y[:, 2] = 0
    y[:2, 2] = 1
    rows = suppress(evaluate(p, y, patients, FINDINGS, replicates=10), min_cell=5)
    names = by_name(rows)
    assert names["auroc", MACRO].value is None
    assert names["auroc", "Edema"].value is not None
    assert [(r.metric, r.finding) for r in rows] == list(names)
    y[:, 2] = 0
    none = by_name(suppress(evaluate(p, y, patients, FINDINGS, replicates=10), min_cell=5))
    assert none["auroc", "Fracture"].reason == "suppressed: fewer than 5"  # "no positive" would tell
    assert none["auroc", MACRO].value is not None  # no AUROC was hidden in it
    assert none["brier", MACRO].value is None  # a Brier score was
    assert suppress(rows, 0) == rows


def test_paired_difference_is_the_difference_on_the_same_resamples(cohort):
    p, y, patients, site = cohort
    q = np.clip(p + np.random.default_rng(2).normal(0, 0.05, p.shape), 0, 1)
    rows = by_name(paired_difference(p, q, y, patients, FINDINGS, replicates=300, seed=1))
    a, b = (by_name(evaluate(s, y, patients, FINDINGS, replicates=300, seed=1)) for s in (p, q))
    for name in (*FINDINGS, MACRO):
        row = rows["auroc_difference", name]
        assert row.value == pytest.approx(a["auroc", name].value - b["auroc", name].value, abs=1e-12)
        assert row.low < row.value < row.high
        unpaired = np.hypot(*(r["auroc", name].high - r["auroc", name].low for r in (a, b)))
        assert row.high - row.low < unpaired / 2
    back = by_name(paired_difference(q, p, y, patients, FINDINGS, replicates=300, seed=1))
    assert back["auroc_difference", MACRO].value == pytest.approx(-rows["auroc_difference", MACRO].value)
    within = paired_difference(p, q, y, patients, FINDINGS, strata=site, replicates=20)
    assert within[0].metric == "auroc_within_site_difference"
    same = paired_difference(p, p, y, patients, FINDINGS, replicates=20)
    assert {r.value for r in same} == {0.0}
    hidden = paired_difference(p, q, y, patients, FINDINGS, replicates=20, min_cell=10_000)
    assert {r.value for r in hidden} == {None}


def test_several_models_are_the_mean_of_their_metrics(cohort):
    p, y, patients, site = cohort
    models = np.stack([p, p[::-1], np.sqrt(p)])
    mean = by_name(evaluate(models, y, patients, FINDINGS, site, replicates=40))
    single = [by_name(evaluate(m, y, patients, FINDINGS, site, replicates=40)) for m in models]
    for key, row in mean.items():
        assert row.value == pytest.approx(np.mean([s[key].value for s in single]), abs=1e-12)
    gain = by_name(paired_difference(p, models, y, patients, FINDINGS, replicates=40))
    assert gain["auroc_difference", MACRO].value == pytest.approx(
        single[0]["auroc", MACRO].value - mean["auroc", MACRO].value
    )


def test_bad_shapes_and_values_are_named(cohort):
    p, y, patients, site = cohort
    with pytest.raises(ValueError, match=r"400 patients and 3 findings need scores \[400, 3\]"):
        evaluate(p[:, :2], y, patients, FINDINGS)
    with pytest.raises(ValueError, match="one site for each of 400 images"):
        evaluate(p, y, patients, FINDINGS, site[:5])
    with pytest.raises(ValueError, match="none may be called 'macro'"):
        evaluate(p, y, patients, ("a", "b", MACRO))
    with pytest.raises(ValueError, match="apply a sigmoid"):
        evaluate(p * 9, y, patients, FINDINGS)
    with pytest.raises(ValueError, match="label code 7"):
        evaluate(p, np.where(y == 1, 7, y), patients, FINDINGS)


def test_a_line_is_plain_json(cohort):
    p, y, patients, site = cohort
    for row in evaluate(p, y, patients, FINDINGS, site, replicates=10):
        assert json.loads(json.dumps(row.line(), allow_nan=False)) == row.line()
