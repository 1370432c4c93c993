"""Words of change."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.language.change import (
    INVERSE,
    THREE,
    change_flag,
    courses,
    keyword_match,
    keywords,
    progression,
    sentence_change,
    temporal_keywords,
)


def test_there_are_44_keywords():
    assert len(keywords()) == 44
    assert {"bigger", "unfolded", "unaltered", "stably", "worse"} <= keywords()


def test_keywords_are_words_of_their_own():
    assert temporal_keywords("New and stable; newer, unstable, RESOLVED.") == {"new", "stable", "resolved"}
    assert temporal_keywords("") == frozenset()


def test_keyword_match_by_its_definition():
    assert keyword_match("new stable worse", "stable worse improved") == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert keyword_match("new", "new stable") == pytest.approx((0.5, 1.0, 2 / 3))
    assert keyword_match("lungs clear", "no effusion") == (1.0, 1.0, 1.0)
    assert (
        keyword_match("new", "no effusion")
        == keyword_match("clear", "new")
        == keyword_match("new", "worse")
        == (0.0,) * 3
    )


@pytest.mark.parametrize(
    ("sentence", "found"),
    [
        ("Improving edema.", [("Edema", "improved")]),
        ("Interval decrease in small left effusion.", [("Pleural Effusion", "improved")]),
        ("The effusion is smaller.", [("Pleural Effusion", "improved")]),
        ("Partial resolution of the pneumonia.", [("Pneumonia", "improved")]),
        ("Worsening edema.", [("Edema", "worsened")]),
        ("Effusion has increased.", [("Pleural Effusion", "worsened")]),
        ("Increasing consolidation.", [("Consolidation", "worsened")]),
        ("Stable cardiomegaly.", [("Cardiomegaly", "stable")]),
        ("No significant change in right atelectasis.", [("Atelectasis", "stable")]),
        ("Persistent effusion.", [("Pleural Effusion", "stable")]),
        ("Effusion is again seen.", [("Pleural Effusion", "stable")]),
        ("Pneumonia has not improved.", [("Pneumonia", "stable")]),
        ("Effusion has not increased.", [("Pleural Effusion", "stable")]),
        ("New left pneumothorax.", [("Pneumothorax", "new")]),
        ("Interval development of edema.", [("Edema", "new")]),
        ("Nodule, not seen on the prior film.", [("Lung Lesion", "new")]),
        ("Pneumothorax has resolved.", [("Pneumothorax", "resolved")]),
        ("Interval resolution of edema.", [("Edema", "resolved")]),
        ("Effusion is no longer seen.", [("Pleural Effusion", "resolved")]),
        ("No new consolidation.", []),
        ("No effusion.", []),
        ("Small effusion.", []),
        ("Decreased lung volumes with atelectasis.", []),
        ("Effusion, left greater than right.", []),
        ("Increased interstitial markings.", []),
        ("Chronic obstructive disease with effusion.", []),
        ("Worsening edema and stable cardiomegaly.", [("Edema", "worsened"), ("Cardiomegaly", "stable")]),
        ("Small effusions and atelectasis are unchanged.", [("Pleural Effusion", "stable"), ("Atelectasis", "stable")]),
        ("Stable effusion; new consolidation.", [("Pleural Effusion", "stable"), ("Consolidation", "new")]),
    ],
)
def test_sentence(sentence, found):
    assert sentence_change(sentence) == found


def test_progression_is_a_strict_majority_of_three():
    report = "FINDINGS: Effusion is larger. Edema has resolved.\nIMPRESSION: Worsening effusion. Stable effusion. New nodule."
    assert progression(report) == {"Lung Lesion": "worsened", "Edema": "improved", "Pleural Effusion": "worsened"}
    assert progression("Right effusion is larger. Left effusion is smaller. Stable edema.") == {"Edema": "stable"}
    assert progression("") == {}


def test_inverse_is_an_involution_and_fits_the_three():
    assert all(INVERSE[INVERSE[course]] == course for course in INVERSE)
    turned = {"improved": "worsened", "worsened": "improved", "stable": "stable"}
    assert all(THREE[INVERSE[course]] == turned[THREE[course]] for course in THREE)


@pytest.mark.parametrize(
    ("current", "prior", "changed"),
    [
        ("Worsening edema.", None, True),
        ("Stable edema.", None, False),
        ("Edema.", None, False),
        ("Edema.", "Edema.", False),
        ("Edema.", "No edema.", True),
        ("No edema.", "Edema.", True),
        ("Edema.", "Normal heart.", False),
        ("Edema.", "Possible edema.", False),
        ("No new edema.", "Edema.", False),
        ("", "Edema.", False),
        ("", None, False),
    ],
)
def test_change_flag(current, prior, changed):
    flag = change_flag(current, prior)
    assert flag.changed is changed and bool(flag.reasons) is changed


def test_reasons_are_told():
    assert change_flag("Edema. New effusion.", "No edema.").reasons == (
        "Pleural Effusion: new",
        "Edema: absent, now present",
    )


@given(st.text(max_size=200))
@settings(max_examples=80, deadline=None)
def test_anything_has_a_flag(text):
    assert change_flag(text, text).changed == any(course != "stable" for _, course in courses(text))
