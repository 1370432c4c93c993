"""Sentences and words."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.language.lexicon import lexicon
from models.language.tokens import LONGEST, Folding, plain, sentences


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Small PTX. No effusion.", ["Small PTX.", "No effusion."]),
        ("1. Small PTX.2. Rt. effusion, approx. 2.5 cm.", ["Small PTX.", "Rt. effusion, approx. 2.5 cm."]),
        ("1. One 2. Two 3) Three", ["One", "Two", "Three"]),
        ("(1) One (2) Two", ["One", "Two"]),
        ("Lungs clear\nNo effusion", ["Lungs clear", "No effusion"]),
        ("Lungs clear No effusion Heart large", ["Lungs clear", "No effusion", "Heart large"]),
        ("Opacity in the apex.There is more.", ["Opacity in the apex.", "There is more."]),
        ("LUNGS CLEAR.NO EFFUSION.", ["LUNGS CLEAR.", "NO EFFUSION."]),
        ("Is it new? Yes!", ["Is it new?", "Yes!"]),
        ("Seen by Dr. Smith at 5 p.m. today.", ["Seen by Dr. Smith at 5 p.m. today."]),
        ("\u2022 One \u2022 Two", ["One", "Two"]),
        ("measures 2.5 x 3.1 cm. Next.", ["measures 2.5 x 3.1 cm.", "Next."]),
        ("at T12. The rest", ["at T12.", "The rest"]),
        ("There are 2 nodules.", ["There are 2 nodules."]),
        ("heart &gt; normal", ["heart > normal"]),
        ("", []),
        (" \n\t ", []),
        ("...!!", []),
    ],
)
def test_sentences(text, parts):
    assert [sentence.text for sentence in sentences(text)] == parts


@given(st.text(max_size=300))
@settings(max_examples=150, deadline=None)
def test_sentences_of_anything(text):
    """Nothing is raised, nothing is invented, the order is that of the text, no word is lost."""
    whole = plain(text)
    found = sentences(text)
    assert all(whole[s.start : s.end] == s.text and s.text == s.text.strip() and s.text for s in found)
    assert all(a.end <= b.start for a, b in zip(found, found[1:]))
    words = "".join(c for s in found for c in s.text if c.isalpha())
    assert words == "".join(c for c in whole if c.isalpha())


@pytest.fixture(scope="module")
def fold():
    return Folding({"pneumothorax", "effusion", "opacity", "edema", "lung", "mass", "be", "see", "no", "infection"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Pneumothoraces", ["pneumothorax"]),
        ("pnuemothorax, effusoin", ["pneumothorax", ",", "effusion"]),
        ("Oedema", ["edema"]),
        ("EFFUSIONS", ["effusion"]),
        ("masses", ["mass"]),
        ("opacities", ["opacity"]),
        ("lungs were visible", ["lung", "be", "see"]),
        ("w/o PTX", ["without", "pneumothorax"]),
        ("c/w", ["consistent", "with"]),
        ("(-) effusion - (+)", ["(-)", "effusion", "-", "(+)"]),
        ("air-space", ["air", "space"]),
        ("[**Name 12**] XXXX ____", ["xxxx", "xxxx", "xxxx"]),
        ("injection", ["injection"]),
        ("2.5 cm", ["2.5", "cm"]),
    ],
)
def test_words_are_folded(fold, text, words):
    assert fold(text) == words


def test_a_slip_is_mended_only_in_long_names():
    fold = Folding({"mass", "nodule", "edema"})
    assert fold("mas nodlue edmea") == ["mas", "nodlue", "edmea"]


@given(st.text(max_size=200))
@settings(max_examples=150, deadline=None)
def test_every_word_has_its_place(text):
    fold = lexicon().fold
    places = fold.spans(text)
    assert len(places) == len(fold(text))
    assert all(0 <= a < b <= len(text) for a, b in places)
    assert places == sorted(places)


def test_memory_of_the_folding_is_bounded(monkeypatch):
    monkeypatch.setattr(Folding, "_ROOM", 100)
    fold = Folding({"edema"})
    for k in range(1000):
        fold(f"word{'a' * (k % 7)}{chr(97 + k % 26)}{'b' * (k // 7)}")
    assert len(fold) <= 100


def test_a_long_text_costs_linear_time_and_is_cut():
    for text in ("a" * 10**6, ". " * 500_000, "1. " * 300_000, "Heart " * 200_000, "&amp;" * 200_000):
        begun = time.process_time()
        found = sentences(text)
        assert sum(len(s.text) for s in found) <= LONGEST
        assert time.process_time() - begun < 2
