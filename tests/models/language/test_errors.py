"""Reports with exactly one error."""

import random
from collections import Counter

import pytest

from models.language.errors import CATEGORIES, make_error, make_errors
from models.language.labeller import label_text
from models.language.rewriting import means_the_same
from models.language.tokens import sentences
from models.studies.schema import CHEXPERT, Label
from tests.models.language.openi import reports, sections

REPORT = (
    "FINDINGS: Small left pleural effusion. Mild cardiomegaly. No pneumothorax. 8 mm nodule in the right upper lobe. "
    "Right central venous catheter tip in the SVC.\n"
    "IMPRESSION: Small left pleural effusion. Mild cardiomegaly. 8 mm nodule in the right upper lobe. "
    "Right central venous catheter tip in the SVC. No pneumothorax."
)


def present(text):
    return {name for name, label in label_text(text).items() if label is Label.PRESENT and name != CHEXPERT[0]}


@pytest.mark.parametrize("category", CATEGORIES)
def test_one_sentence_differs(category):
    for seed in range(8):
        error = make_error(REPORT, category, random.Random(seed))
        assert error is not None and error.category == category and error.section == "impression"
        before = Counter(s.text for s in sentences(error.original))
        after = Counter(s.text for s in sentences(error.text))
        assert list(after - before) == [error.after]
        assert list(before - after) == ([error.before] if error.before else [])


@pytest.mark.parametrize("category", ["severity", "location", "measurement", "device_renamed", "device_moved"])
def test_labels_stay_and_the_sentence_does_not_mean_the_same(category):
    for seed in range(8):
        error = make_error(REPORT, category, random.Random(seed))
        assert label_text(error.text) == label_text(error.original)
        if category not in ("device_renamed", "device_moved", "location"):  # a name or a height is no attribute
            assert not means_the_same(error.before, error.after)


def test_false_negation_denies_and_false_finding_asserts():
    for seed in range(8):
        error = make_error(REPORT, "false_negation", random.Random(seed))
        assert present(error.original) - present(error.text) == {error.finding}
        assert label_text(error.text)[error.finding] is Label.ABSENT
        error = make_error(REPORT, "false_finding", random.Random(seed))
        assert present(error.text) - present(error.original) == {error.finding}


def test_what_the_findings_deny_is_asserted_first():
    report = "FINDINGS: No pneumothorax. Lungs are clear.\nIMPRESSION: No acute disease."
    for seed in range(8):
        error = make_error(report, "false_finding", random.Random(seed))
        assert error.finding == "Pneumothorax" and error.text == error.after  # in the place of what would contradict it


def test_opposite_sentence_contradicts_one_that_stays():
    for seed in range(8):
        error = make_error(REPORT, "opposite_sentence", random.Random(seed))
        assert error.before is None and error.original.replace(" ", "") in error.text.replace(error.after, "").replace(
            " ", ""
        )
        said = label_text(error.after)[error.finding]
        assert {said, label_text(error.original)[error.finding]} == {Label.PRESENT, Label.ABSENT}


def test_device_added_is_not_one_that_is_there():
    for seed in range(12):
        error = make_error(REPORT, "device_added", random.Random(seed))
        assert "internal jugular" in error.after or "central" not in error.after
        assert present(error.after) == {"Support Devices"}


def test_severity_and_location_come_first_and_errors_differ():
    for seed in range(6):
        errors = make_errors(REPORT, seed, count=9)
        assert [e.category for e in errors[:2]] == ["severity", "location"]
        assert len({e.text for e in errors}) == len(errors) == 9
        assert make_errors(REPORT, seed, count=9) == errors
        assert make_errors(REPORT, seed, count=2) == errors[:2]
    assert make_errors(REPORT, 1) != make_errors(REPORT, 2)


def test_more_errors_than_categories():
    errors = make_errors(REPORT, 3, count=12)
    assert len(errors) == 12 and max(Counter(e.category for e in errors).values()) == 2


def test_a_report_without_an_impression_gets_its_error_in_the_findings():
    error = make_error("FINDINGS: Small left effusion.", "severity", random.Random(0))
    assert error.section == "findings" and error.text == "Large left effusion."


@pytest.mark.parametrize("report", ["", "IMPRESSION:", "\0\xff", "\U0001fac1"])
def test_nothing_comes_of_nothing(report):
    assert all(e.category in ("false_finding", "device_added") for e in make_errors(report, 1))
    assert make_errors("", 1) == []


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        make_errors(REPORT, 1, count=0)
    with pytest.raises(ValueError, match="allowed are severity"):
        make_error(REPORT, "typo", random.Random(0))


@pytest.mark.real
def test_real_reports(dev_data):
    """Nearly every report has three errors; what is there besides the error says what it said."""
    counts, tried = Counter(), 0
    for number, row in enumerate(reports(dev_data)[::10]):
        errors = make_errors(sections(row), number)
        tried += 1
        counts["three"] += len(errors) == 3
        for error in errors:
            counts[error.category] += 1
            assert error.text != error.original
            a, b = label_text(error.original), label_text(error.text)
            differ = {name for name in CHEXPERT[1:] if a[name] != b[name]}
            assert differ <= {error.finding} or (error.finding == "Edema" and differ <= {"Edema", "Cardiomegaly"})
    assert counts["three"] / tried > 0.95
    assert all(counts[c] > 3 for c in ("severity", "location", "false_finding", "false_negation", "opposite_sentence"))
