"""House styles, both ways."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.config import ConfigError, build
from models.language.labeller import label_report
from models.language.rewriting import (
    SORTS,
    House,
    abbreviate,
    expand,
    house,
    houses,
    means_the_same,
    prose,
    restyled,
    rewrite,
    telegraphic,
    with_synonyms,
)
from models.language.sections import Sections
from models.language.vocabulary import load
from tests.models.language.openi import reports, sections

REPORT = Sections(
    findings="There is no pneumothorax in the right upper lobe. The heart is mildly enlarged. "
    "There is a small left pleural effusion.",
    impression="Small left pleural effusion. Cardiomegaly, consistent with heart failure.",
)


@pytest.mark.parametrize(
    ("long", "short"),
    [
        ("No pneumothorax in the right upper lobe.", "No PTX in the RUL."),
        ("Cardiac silhouette is within normal limits.", "Cardiac silhouette is WNL."),
        ("Findings consistent with pneumonia.", "Findings c/w PNA."),
        ("Endotracheal tube above the carina.", "ETT above the carina."),
        ("Left effusion.", "Lt effusion."),
        ("No evidence of pneumonia.", "No e/o PNA."),
    ],
)
def test_abbreviations_go_both_ways(long, short):
    assert abbreviate(long) == short
    assert expand(short) == long


@pytest.mark.parametrize("long, short, sort", load("abbreviations")["write"])
def test_every_abbreviation_is_read_again_as_what_it_stood_for(long, short, sort):
    assert abbreviate(f"seen {long} there", [sort]) == f"seen {short} there"
    again = expand(f"seen {short} there")
    assert abbreviate(again, [sort]) == f"seen {short} there"  # another long form of the same short one may come back


def test_only_the_sorts_that_are_asked_for():
    text = "No pneumothorax in the right upper lobe, consistent with recovery."
    assert abbreviate(text, ["place"]) == "No pneumothorax in the RUL, consistent with recovery."
    assert abbreviate(text, []) == text
    with pytest.raises(ValueError, match="sorts are finding"):
        abbreviate(text, ["organ"])


def test_a_share_of_the_places():
    text = "pneumothorax " * 400
    count = abbreviate(text, SORTS, 0.3, random.Random(1)).count("PTX")
    assert 80 < count < 160
    assert abbreviate(text, SORTS, 0.0, random.Random(1)) == text


def test_letter_case():
    assert expand("NO PTX IN THE RUL.") == "NO PNEUMOTHORAX IN THE RIGHT UPPER LOBE."
    assert abbreviate("NO PNEUMONIA W/O EDEMA, CONSISTENT WITH COLD.") == "NO PNA W/O EDEMA, C/W COLD."
    assert expand("PTX seen. PNA likely.") == "Pneumothorax seen. Pneumonia likely."


@pytest.mark.parametrize(
    ("whole", "short"),
    [
        ("There is a small left pleural effusion.", "Small left pleural effusion."),
        ("There are bilateral opacities.", "Bilateral opacities."),
        ("The heart is normal in size.", "Heart normal in size."),
        ("No pneumothorax is seen.", "No pneumothorax."),
        ("There is no evidence of pneumonia.", "No pneumonia."),
        ("The lungs are clear.", "Lungs clear."),
    ],
)
def test_telegraphic(whole, short):
    assert telegraphic(whole) == short


@pytest.mark.parametrize(
    ("short", "whole"),
    [
        ("Small left pleural effusion.", "There is a small left pleural effusion."),
        ("Bilateral opacities.", "There are bilateral opacities."),
        ("No pneumothorax.", "There is no pneumothorax."),
        ("No effusions.", "There are no effusions."),
        ("Heart size normal.", "The heart size is normal."),
        ("Lungs clear.", "The lungs are clear."),
        ("The heart is enlarged.", "The heart is enlarged."),
        ("Effusion has resolved.", "Effusion has resolved."),
        ("RUL opacity.", "RUL opacity."),
    ],
)
def test_prose(short, whole):
    assert prose(short) == whole


def test_synonyms_are_taken_whole():
    assert with_synonyms("Heart size is within normal limits.", 1.0, random.Random(0)) in (
        "Heart size is normal.",
        "Heart size is unremarkable.",
    )
    assert "normal limits limits" not in with_synonyms("Within normal limits.", 1.0, random.Random(0))
    assert with_synonyms("Stable effusion.", 0.0, random.Random(0)) == "Stable effusion."


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("Small left effusion.", "There is a small left pleural effusion.", True),
        ("Small left effusion.", "Small right effusion.", False),
        ("Small left effusion.", "Large left effusion.", False),
        ("Small left effusion.", "No effusion.", False),
        ("8 mm nodule.", "9 mm nodule.", False),
        ("Mild edema.", "Slight edema.", True),
        ("No edema.", "No edema or effusion.", False),
    ],
)
def test_meaning(a, b, same):
    assert means_the_same(a, b) is same


@pytest.mark.parametrize("name", houses())
def test_every_house_keeps_what_is_said(name):
    style = house(name)
    before = label_report(REPORT if style.sections == "both" else Sections(impression=REPORT.impression))
    for seed in range(5):
        made = rewrite(REPORT, style, seed)
        assert label_report(made.text) == before == label_report(made.sections)
        assert made == rewrite(REPORT, style, seed) and made.writer == "rules"


def test_houses_write_differently():
    texts = {rewrite(REPORT, house(name), 1).text for name in houses()}
    assert len(texts) == len(houses()) >= 7


def test_layout():
    lines = House(headings="line", upper=True)
    assert rewrite(REPORT, lines, 0).text.startswith("FINDINGS\nTHERE IS NO")
    assert "[IMPRESSION] Small" in rewrite(REPORT, House(headings="tag"), 0).text
    assert (
        "IMPRESSION: 1. Small left pleural effusion. 2. Cardiomegaly" in rewrite(REPORT, House(numbered=True), 0).text
    )
    only = rewrite(REPORT, House(sections="impression"), 0)
    assert only.sections.findings is None and only.text.startswith("IMPRESSION: ")
    assert rewrite(Sections(findings="No edema."), House(sections="impression"), 0).text == "FINDINGS: No edema."


def test_shuffling_keeps_the_sentences():
    made = {rewrite(REPORT, House(shuffle=True), seed).sections.findings for seed in range(12)}
    assert len(made) > 2
    assert len({"".join(sorted(text.replace(" ", ""))) for text in made}) == 1


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"expand": True, "abbreviate": ["place"]}, "expand and abbreviate"),
        ({"telegraphic": True, "prose": True}, "telegraphic and prose"),
        ({"share": 1.5}, "share 1.5"),
        ({"abbreviate": ["organ"]}, "abbreviate"),
        ({"uper": True}, "upper"),
    ],
)
def test_a_house_that_contradicts_itself_is_refused(values, told):
    with pytest.raises(ConfigError, match=told):
        build(House, values)


def test_an_unknown_house_is_named():
    with pytest.raises(ConfigError, match="shipped are abbreviated"):
        house("nosuch")


def test_a_writer_is_off_unless_given_and_is_checked():
    calls = []

    def good(text):
        calls.append(text)
        return text.replace("Small", "A small")

    made = rewrite(REPORT, House(), 0, writer=good)
    assert made.writer == "model" and "A small left pleural effusion." in made.text and len(calls) == 2
    for bad in (
        lambda text: "",
        lambda text: text.replace("left", "right"),
        lambda text: "Normal chest.",
        lambda text: text + " Pneumothorax.",
    ):
        made = rewrite(REPORT, House(), 0, writer=bad)
        assert made.writer == "rules" and label_report(made.sections) == label_report(REPORT)


@pytest.mark.parametrize("report", ["", " ", "FINDINGS:\nIMPRESSION:", "\0", "\U0001fac1 ok", "\u6b63\u5e38"])
def test_what_is_no_report_is_no_error(report):
    for name in houses():
        rewrite(report, house(name), 1)


@given(st.text(max_size=100))
@settings(max_examples=60, deadline=None)
def test_anything_can_be_restyled(text):
    style = House(abbreviate=SORTS, telegraphic=True, synonyms=1.0, upper=True)
    assert means_the_same(text, restyled(text, style, random.Random(0)))


@pytest.mark.real
@pytest.mark.parametrize("name", houses())
def test_real_sentences_keep_their_meaning(dev_data, name):
    style, changed = house(name), 0
    for number, row in enumerate(reports(dev_data)[::25]):
        made = rewrite(sections(row), style, number)
        for before, after in made.changed:
            assert means_the_same(before, after), (before, after)
            changed += 1
    assert changed > 30 or name in ("plain", "impression_only")
