"""The rules of the report, and texts that are none."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.config import ConfigError, build
from models.language.labeller import PARENTS, Labelling, label_report, label_text, merge, read_report
from models.language.mentions import Mention, Reading, read_sentence
from models.language.sections import Sections
from models.studies.schema import CHEXPERT, Label

P, A, U, N = Label.PRESENT, Label.ABSENT, Label.UNCERTAIN, Label.UNMENTIONED
SILENT = dict.fromkeys(CHEXPERT, N)


def reading(*pairs, other=False, normal=False, tokens=("x",)):
    return Reading(list(tokens), [Mention(f, label, False, 0, 1) for f, label in pairs], other, normal)


def said(labels):
    return {name: label for name, label in labels.items() if label is not N}


@pytest.mark.parametrize(
    ("labels", "together"),
    [((A, P), P), ((P, A), P), ((U, A), U), ((A, U), U), ((U, P), P), ((P, U), P), ((A, A), A), ((A,), A)],
)
def test_present_beats_uncertain_beats_absent(labels, together):
    found = merge(reading(("Edema", label)) for label in labels)
    assert found["Edema"] is together


def test_keys_are_the_classes_in_order():
    assert tuple(label_report("Heart normal.")) == CHEXPERT


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Normal chest.", P),
        ("No pneumothorax.", P),
        ("Lungs are clear.", P),
        ("No acute disease.", P),
        ("Normal chest. Pacemaker in place.", P),
        ("Normal chest. Small effusion.", N),
        ("Normal chest. Possible effusion.", N),
        ("No pneumothorax. Emphysema.", N),
        ("No pneumothorax. No emphysema.", P),
        ("Pacemaker in place.", N),
        ("Follow-up in one week.", N),
        ("", N),
    ],
)
def test_no_finding(text, label):
    assert label_report(text)["No Finding"] is label


def test_heart_failure_leaves_the_heart_uncertain_unless_it_is_spoken_of():
    assert label_report("Congestive heart failure.")["Cardiomegaly"] is U
    assert label_report("Congestive heart failure. Heart size normal.")["Cardiomegaly"] is A
    assert label_report("No heart failure.")["Cardiomegaly"] is N
    assert label_report("Pulmonary edema.")["Cardiomegaly"] is N


def test_probable_is_a_setting():
    text = "Probable small effusion. Possible pneumonia."
    assert said(label_report(text)) == {"Pleural Effusion": U, "Pneumonia": U}
    assert said(label_report(text, Labelling(probable="present"))) == {"Pleural Effusion": P, "Pneumonia": U}


@pytest.mark.parametrize("child", PARENTS)
def test_parents_are_a_setting(child):
    how = Labelling(parents=True)
    for label in (P, U):
        plain = merge([reading((child, label))])
        with_parents = merge([reading((child, label))], how)
        assert plain[PARENTS[child]] is N and with_parents[PARENTS[child]] is label
    assert merge([reading((child, A))], how)[PARENTS[child]] is N
    assert merge([reading((child, P)), reading((PARENTS[child], A))], how)[PARENTS[child]] is P
    assert merge([reading((child, U)), reading((PARENTS[child], P))], how)[PARENTS[child]] is P


def test_pneumonia_reaches_the_top_of_the_tree():
    found = merge([reading(("Pneumonia", P))], Labelling(parents=True))
    assert found["Consolidation"] is P and found["Lung Opacity"] is P


def test_a_wrong_setting_is_named():
    with pytest.raises(ConfigError, match="probable"):
        build(Labelling, {"probable": "maybe"})
    with pytest.raises(ConfigError, match="parents"):
        build(Labelling, {"parent": True})


def test_what_was_asked_and_compared_is_not_read():
    text = (
        "INDICATION: pneumonia?\nCOMPARISON: film with effusion.\nTECHNIQUE: AP.\n"
        "FINDINGS: No edema.\nIMPRESSION: Cardiomegaly.\nADDENDUM: Rib fracture."
    )
    assert said(label_report(text)) == {"Edema": A, "Cardiomegaly": P, "Fracture": P}
    assert [part.section for part in read_report(text)] == ["findings", "impression", "addendum"]


def test_sections_and_a_text_with_headings_are_the_same():
    parts = Sections(findings="No edema.", impression="Cardiomegaly.")
    assert label_report(parts) == label_report("FINDINGS: No edema.\nIMPRESSION: Cardiomegaly.")


def test_letter_case_and_line_ends_do_not_matter():
    text = "FINDINGS: Small left effusion.\nNo pneumothorax.\nIMPRESSION: 1. Cardiomegaly.\n2. PNA cannot be excluded."
    labels = label_report(text)
    assert label_report(text.upper()) == labels == label_report(text.replace("\n", "\r\n"))
    assert labels == label_report(text.lower())


BAD = {
    "empty": "",
    "blank": " \n\t\r\n ",
    "headings": "FINDINGS:\n\nIMPRESSION:\n",
    "chinese": "\u80f8\u90e8\u6b63\u5e38\u3002\u5fc3\u5f71\u4e0d\u5927\u3002",
    "arabic": "\u0627\u0644\u0635\u062f\u0631 \u0637\u0628\u064a\u0639\u064a",
    "german": "Kein Pneumothorax, kein Infiltrat, Herz nicht vergr\u00f6\u00dfert.",
    "spanish": "Sin neumonia ni atelectasia. No hay pneumotorax.",
    "french": "Pas de pneumothorax. Aucune consolidation.",
    "emoji": "\U0001fac1\U0001f44d \U0001f9b4\u2764\ufe0f",
    "binary": bytes(range(256)).decode("latin-1") * 20,
    "nul": "\0" * 5000,
    "surrogate": "\ud800\udfff broken",
    "signs": "!?.,;:-()/[]{}<>*&^%$#@~`|\\+=_" * 200,
    "digits": "1.2.3.4.5. 6) 7) (8) 9: " * 400,
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_report_says_nothing(name):
    assert label_report(BAD[name]) == SILENT


def test_words_among_rubbish_are_still_read():
    text = f"{BAD['emoji']} No pneumothorax \U0001f44d. {BAD['chinese']} Small effusion. \0\x07"
    assert said(label_report(text)) == {"Pneumothorax": A, "Pleural Effusion": P}


@pytest.mark.parametrize(
    "unit", ["No effusion, ", "heart and ", "possible ", "not ", "1. ", "(", "no evidence of ", "or ", "normal ", ". "]
)
def test_twenty_thousand_characters_take_linear_time(unit):
    half, whole = unit * (10_000 // len(unit)), unit * (20_000 // len(unit))

    def seconds(text):
        begun = time.process_time()
        label_report(text)
        return time.process_time() - begun

    label_report("No effusion.")
    short = min(seconds(half) for _ in range(3))
    long = min(seconds(whole) for _ in range(3))
    assert long < 1.5 and long < 6 * short + 0.05  # quadratic in one sentence at worst, and small at that


def test_more_than_is_read_is_left_out():
    text = "Lungs are clear. " * 2000 + "Pneumothorax."
    assert label_report(text)["Pneumothorax"] is N


@given(st.text(max_size=400))
@settings(max_examples=100, deadline=None)
def test_anything_has_fourteen_labels(text):
    labels = label_report(text)
    assert tuple(labels) == CHEXPERT and set(labels.values()) <= set(Label)
    assert labels == label_report(text)


WORDS = ("no", "not", "without", "possible", "effusion", "pneumothorax", "edema", "heart", "normal", "enlarged", "is")
WORDS += ("are", "and", "or", ",", ";", "but", "small", "left", "right", "cannot", "exclude", "be", "excluded", "may")
WORDS += ("represent", "with", "mass", "nodule", "clear", "lungs", "seen", "unchanged", "versus")


def test_order_of_sentences_does_not_matter():
    rng = random.Random(5)
    for _ in range(200):
        texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 9))) for _ in range(4)]
        readings = [read_sentence(text) for text in texts]
        labels = merge(readings)
        rng.shuffle(readings)
        assert merge(readings) == labels


def test_one_section_in_which_no_heading_is_looked_for():
    assert said(label_text("Impression of a small effusion.")) == {"Pleural Effusion": P}
    assert label_text(None) == SILENT
