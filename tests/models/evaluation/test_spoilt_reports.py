"""Curves over noise."""

from __future__ import annotations

import difflib

import numpy as np
import pytest

from models.evaluation.spoilt_reports import LEVELS, NOISES, curve, noisy

TEXTS = [
    f"There is a {size} mm nodule in the {side} {place} lobe. No pneumothorax or pleural effusion."
    for size in (4, 6, 9, 12)
    for side in ("left", "right")
    for place in ("upper", "lower")
]


def letters(texts, instruction):
    """Counts of pairs of letters: a plain encoder that noise wears down."""
    found = np.zeros((len(texts), 1024))
    for row, text in enumerate(texts):
        for a, b in zip(text, text[1:]):
            found[row, (ord(a) * 31 + ord(b)) % 1024] += 1
    return found


def _kept(a: str, b: str) -> int:
    return sum(block.size for block in difflib.SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks())


def test_level_0_is_the_text_and_the_same_draw_is_the_same_text():
    for noise in NOISES:
        assert noisy(TEXTS[0], noise, 0) == TEXTS[0]
        assert noisy(TEXTS[0], noise, 0.5, 3) == noisy(TEXTS[0], noise, 0.5, 3)
    assert len({noisy(TEXTS[0], "typing", 0.3, seed) for seed in range(9)}) == 9


@pytest.mark.parametrize("level", [0.05, 0.2, 0.5])
def test_typing_hits_as_many_letters_as_it_says(level):
    words = [f"{a}{b}{c}ngsclear" for a in "abcdefgh" for b in "jklmnopq" for c in "rstuvwxyz"]
    made = [noisy(word, "typing", level) for word in words]
    changed = np.mean([len(word) - _kept(word, new) for word, new in zip(words, made)]) / 11
    # A swap moves two letters and skips one; a doubled letter loses none.
    assert 0.4 * level < changed < 1.1 * level
    assert sorted(set(noisy("12.5 , ;", "typing", 1.0))) == sorted(set("12.5 , ;"))


def test_abbreviation_shortens_more_the_higher_the_level():
    sizes = [sum(len(noisy(t, "abbreviation", level)) for t in TEXTS) for level in LEVELS["abbreviation"]]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < sizes[0]
    assert "PTX" in noisy(TEXTS[0], "abbreviation", 1.0)


def test_the_curve_begins_at_one_and_falls():
    points = curve(letters, TEXTS * 2, np.arange(2 * len(TEXTS)) % len(TEXTS), "typing", replicates=200)
    values = [point.result.value for point in points]
    assert [point.level for point in points] == list(LEVELS["typing"])
    assert values[0] == 1 and values[-1] < 0.8 and values[1] > values[-1]
    worst = points[-1].result
    assert worst.n == 2 * len(TEXTS) and worst.low < worst.value < worst.high


def test_an_encoder_without_knowledge_is_at_chance():
    points = curve(lambda t, i: np.ones((len(t), 3)), TEXTS, np.arange(len(TEXTS)), "typing", replicates=0)
    assert [p.result.value for p in points] == pytest.approx([1 / len(TEXTS)] * len(points))


def test_the_order_of_texts_does_not_matter():
    order = np.random.default_rng(0).permutation(len(TEXTS))
    one = curve(letters, TEXTS, np.arange(len(TEXTS)), "typing", (0.2,), replicates=0)
    other = curve(letters, [TEXTS[i] for i in order], order, "typing", (0.2,), replicates=0)
    assert one[0].result.value == pytest.approx(other[0].result.value)


@pytest.mark.parametrize(("noise", "level"), [("scan", 0.1), ("typing", -0.1), ("typing", 1.5)])
def test_what_cannot_be_is_refused(noise, level):
    with pytest.raises(ValueError, match="at a level in"):
        noisy("x", noise, level)


def test_no_report_has_no_curve():
    point = curve(letters, [], [], "typing", (0.1,))[0]
    assert point.result.value is None and point.result.reason == "no report"


@pytest.mark.parametrize("text", ["", " ", "🫁", "\x00", "日本語", "x"])
def test_odd_texts_break_nothing(text):
    for noise in NOISES:
        assert isinstance(noisy(text, noise, 1.0), str)
