"""The labeller against the published sample reports, human coding and the NegEx kit; and against negspacy."""

import csv

import pytest

import models.language.mentions as mentions
from models.language.labeller import label_report, label_text
from models.language.polarity import polarity
from models.studies.schema import Label
from tests.models.language.openi import counts, f1, intervals, read_csv, reports, scores

pytestmark = pytest.mark.real
CELLS = {"": Label.UNMENTIONED, "1.0": Label.PRESENT, "0.0": Label.ABSENT, "-1.0": Label.UNCERTAIN}


@pytest.fixture(scope="module")
def rows(dev_data):
    return reports(dev_data)


@pytest.fixture(scope="module")
def ours(rows):
    return counts(rows, label_report)


def test_56_of_56_cells_of_the_chexpert_samples(dev_data):
    path = dev_data / "reports" / "lexicons" / "chexpert-labeler" / "labeled_reports.csv"
    with open(path, encoding="utf-8", newline="") as file:
        names, *samples = list(csv.reader(file))
    equal = 0
    for text, *cells in samples:
        labels = label_report(text)
        equal += sum(labels[name] is CELLS[cell] for name, cell in zip(names[1:], cells, strict=True))
    assert (equal, len(samples) * 14) == (56, 56)


def test_human_coding_of_open_i(ours):
    micro, macro = scores(ours)
    assert len(ours) > 2500
    assert micro >= 0.90 and macro >= 0.88  # measured 0.911 and 0.898; the claim is 0.88 and 0.84
    (low, _), (low_macro, _) = intervals(ours, draws=300)
    assert low >= 0.88 and low_macro >= 0.84


def test_a_control_that_denies_nothing_is_far_off(rows, monkeypatch):
    """Negative control: without scopes everything that is named is present."""

    class Blind:
        def __init__(self, tokens, found):
            pass

        def of(self, start, end):
            from models.language.polarity import Verdict

            return Verdict(Label.PRESENT)

    monkeypatch.setattr(mentions, "Scopes", Blind)
    micro, _ = scores(counts(rows[:800], label_report))
    assert micro < 0.5


def test_no_class_is_left_behind(ours):
    assert f1(ours.sum(0)).min() >= 0.65


def negation_f1(pairs):
    """F1 of "denied" from (said, true) pairs."""
    tp = sum(a and b for a, b in pairs)
    return 2 * tp / (sum(a for a, _ in pairs) + sum(b for _, b in pairs))


def test_negex_kit(dev_data):
    pairs = []
    for row in read_csv(dev_data / "reports" / "negex_testkit.csv"):
        try:
            label = polarity(row["sentence"], row["concept"])
        except ValueError:  # three concepts are not written in their sentence as they are listed
            label = Label.PRESENT
        pairs.append((label is Label.ABSENT, row["negation"] == "Negated"))
    assert len(pairs) > 1500
    assert negation_f1(pairs) >= 0.96


SAME = {"Effusion": "Pleural Effusion", "Nodule": "Lung Lesion"}


def test_sentences_of_open_i(dev_data):
    """Sentences whose polarity, by a rule of the set's own, agrees with the coding of their report."""
    pairs = []
    for row in read_csv(dev_data / "reports" / "openi_negation_sentences.csv"):
        finding = SAME.get(row["finding"], row["finding"])
        if row["polarity_rule"] == "uncertain" or row["agrees"] != "1" or finding == "Emphysema":
            continue
        pairs.append((label_text(row["sentence"])[finding] is Label.ABSENT, row["polarity_rule"] == "negated"))
    assert len(pairs) > 5000
    assert negation_f1(pairs) >= 0.99


@pytest.mark.slow
def test_not_worse_than_negspacy_with_the_same_lists(rows, monkeypatch):
    """An independent engine comes out where ours does: the lists decide, and ours are not bent to our engine."""
    pytest.importorskip("negspacy")
    from tests.reference.negspacy_labeller import Engine

    some = rows[::2]
    mine = scores(counts(some, label_report))
    monkeypatch.setattr(mentions, "Scopes", Engine().scopes())
    theirs = scores(counts(some, label_report))
    assert mine[0] > theirs[0] - 0.002 and mine[1] > theirs[1] - 0.01
    assert theirs[0] > 0.89  # an engine that is broken is no comparison
