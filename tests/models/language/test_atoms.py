"""Sentences of several findings as sentences of one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.language.atoms import atoms
from models.language.attributes import Attributes, attributes, merged
from models.language.labeller import label_report, merge, read_report
from models.language.mentions import read_sentence, spoken
from tests.models.language.openi import reports, sections


@pytest.mark.parametrize(
    ("sentence", "parts"),
    [
        ("No effusion or pneumothorax.", ["No effusion.", "No pneumothorax."]),
        (
            "There is no focal consolidation, pleural effusion, or pneumothorax.",
            ["There is no focal consolidation.", "There is no pleural effusion.", "There is no pneumothorax."],
        ),
        ("No effusion or pneumothorax is seen.", ["No effusion is seen.", "No pneumothorax is seen."]),
        ("No effusions or pneumothorax are seen.", ["No effusions are seen.", "No pneumothorax is seen."]),
        ("Lungs are clear without effusion or edema.", ["Lungs are clear.", "No effusion.", "No edema."]),
        ("No effusion, no definite edema.", ["No effusion.", "No definite edema."]),
        (
            "Heart size and mediastinal contours are normal.",
            ["Heart size is normal.", "Mediastinal contours are normal."],
        ),
        ("Normal heart size and mediastinal contours.", ["Normal heart size.", "Normal mediastinal contours."]),
        ("Cardiomegaly without edema.", ["Cardiomegaly.", "No edema."]),
        ("Cardiomegaly with small left effusion.", ["Cardiomegaly.", "Small left effusion."]),
        ("Stable cardiomegaly; no effusion.", ["Stable cardiomegaly.", "No effusion."]),
        ("Small left effusion but no pneumothorax.", ["Small left effusion.", "No pneumothorax."]),
        (
            "Consolidation and atelectasis in the right lower lobe.",
            ["Consolidation in the right lower lobe.", "Atelectasis in the right lower lobe."],
        ),
        ("Small right effusion and left basilar atelectasis.", ["Small right effusion.", "Left basilar atelectasis."]),
    ],
)
def test_split(sentence, parts):
    assert atoms(sentence) == parts


@pytest.mark.parametrize(
    "sentence",
    [
        "Small effusion.",
        "Bibasilar atelectasis and scarring.",  # the place may belong to both
        "Small left effusion and atelectasis.",  # so may the side
        "Mild edema and atelectasis.",  # and the degree
        "Opacity consistent with atelectasis.",
        "Atelectasis versus pneumonia.",
        "Atelectasis or scarring in the left base.",
        "No opacity to suggest pneumonia.",
        "No pleural effusion or thickening.",  # "thickening" alone is not pleural
        "",
        "Stable.",
    ],
)
def test_left_whole(sentence):
    assert atoms(sentence) == [sentence]


WORDS = ("no", "small", "left", "right", "effusion", "pneumothorax", "edema", "consolidation", "and", "or", ",", "with")
WORDS += (
    "without",
    "heart",
    "mediastinum",
    "are",
    "is",
    "normal",
    "seen",
    "atelectasis",
    "in the left base",
    ";",
    "but",
)


@given(st.lists(st.sampled_from(WORDS), max_size=14))
@settings(max_examples=300, deadline=None)
def test_atoms_say_what_the_sentence_said(words):
    sentence = " ".join(words)
    parts = atoms(sentence)
    assert parts
    readings = [read_sentence(part) for part in parts]
    assert spoken(readings) == spoken([read_sentence(sentence)])
    assert merged(attributes(p, r) for p, r in zip(parts, readings)) == attributes(sentence)


@given(st.text(max_size=120))
@settings(max_examples=100, deadline=None)
def test_anything_has_atoms(text):
    assert len(atoms(text)) >= 1


def test_attributes_go_to_the_nearest_finding():
    found = attributes("Small left effusion and 8 mm right nodule.")
    assert found["Pleural Effusion"] == Attributes(frozenset({"left"}), frozenset({"small"}), frozenset({"8 mm"}))
    assert found["Lung Lesion"].sides == {"right"} and not found["Lung Lesion"].degrees
    both = attributes("Scarring or atelectasis in the left base.")
    assert both["Lung Opacity"].sides == both["Atelectasis"].sides == {"left"}
    assert attributes("No left effusion.") == {}


@pytest.mark.real
def test_real_reports_keep_every_label(dev_data):
    """All 14 labels of every report, and seven of ten sentences with several findings come apart."""
    many = split = 0
    for row in reports(dev_data)[::6]:
        parts = [(said, atoms(said.sentence.text)) for said in read_report(sections(row))]
        for said, pieces in parts:
            if len({(m.start, m.end) for m in said.reading.mentions}) > 1:
                many += 1
                split += len(pieces) > 1
        assert merge(read_sentence(p) for _, pieces in parts for p in pieces) == label_report(sections(row))
    assert many > 300 and split / many > 0.7
