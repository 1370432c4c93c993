"""Sentences and words of a report, with spelling, inflection and abbreviations folded together.

[s.text for s in sentences("1. Small PTX.2. Rt. effusion, approx. 2 cm")]
# ['Small PTX.', 'Rt. effusion, approx. 2 cm']
words = Folding({"pneumothorax", "effusion"})
words("Small PTX; no Effusions")
# ['small', 'pneumothorax', ';', 'no', 'effusion']
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

from models.language.vocabulary import load

LONGEST = 20_000
"""Characters of one text that are read; what follows is left out. No report comes near."""


class Sentence(NamedTuple):
    """One sentence as written, its list number left out, and where it stands in the text it came from."""

    text: str
    start: int
    end: int


_HIDDEN = re.compile(r"\[\*\*.{0,80}?\*\*\]|\[[A-Z][A-Z _]{1,30}\]|_{3,}|\bX{3,}\b|<[A-Z_]{2,20}>")
"""What a scrubber puts in the place of an identifier. It stands for an unknown word."""
_LEADING = re.compile(r"[\s\-*>\"']*")
_STOP = re.compile(r"[.!?]+|\n|[\u2022\u25cf\u00b7]")
_NUMBER = re.compile(r"\b(\d{1,2})[.):]\s*(?=[A-Za-z])")
_CAPITAL = re.compile(r"[a-z)]\s([A-Z][a-z]+)\b")


def plain(text: str) -> str:
    """``text`` with character entities and typographic signs as plain ones, same meaning, and cut to size.

    Idempotent, and what offsets of :func:`sentences` count in.
    """
    text = text[:LONGEST]
    if "&" in text:
        text = html.unescape(text)
    return text if text.isascii() else text.translate(_SIGNS)


_SIGNS = str.maketrans(
    {
        "\u2018": "'",
        "\u2019": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u2010": "-",
        "\u2011": "-",
        "\u2012": "-",
        "\u2013": "-",
        "\u2014": "-",
        "\u2212": "-",
        "\u00a0": " ",
        "\u202f": " ",
        "\u00e6": "ae",
        "\u0153": "oe",
    }
)


def sentences(text: str) -> list[Sentence]:
    """The sentences of one section, in order. Never raises for a string; white space alone gives none.

    Ends are full stops (not those of "approx." or "2.5 cm"), line ends, list numbers, bullets, and a capital
    that opens a new statement where a telegraphic list has lost its line ends.
    """
    text = plain(text)
    cuts = sorted(_ends(text))
    found, start = [], 0
    for end, following in [*cuts, (len(text), len(text))]:
        if following < start:
            continue
        piece = text[start:end]
        lead = _LEADING.match(piece).end()
        body = piece[lead:].rstrip()
        if any(c.isalnum() for c in body):
            found.append(Sentence(body, start + lead, start + lead + len(body)))
        start = following
    return found


def _ends(text: str) -> Iterator[tuple[int, int]]:
    """(end of a sentence, start of the next) for every boundary, list numbers left out between them."""
    for match in _STOP.finditer(text):
        start, end = match.span()
        if text[start] not in ".!?":
            yield start, end
        elif _stops(text, start, end):
            yield end, end
    expected = 1
    for match in _NUMBER.finditer(text):
        number, start = int(match[1]), match.start()
        if start and text[start - 1] == "(":
            start -= 1
        if number == expected or (number == 1 and start == 0):
            expected = number + 1
            yield start, match.end()
    opening = _openings()
    for match in _CAPITAL.finditer(text):
        if match[1].lower() in opening:
            yield match.start(1), match.start(1)


def _stops(text: str, start: int, end: int) -> bool:
    """Whether the full stop at ``start`` ends a sentence."""
    following = text[end : end + 1]
    before = text[max(0, start - 3) : start]
    if following and not following.isspace() and following not in "\"')]":
        # A blank forgotten: "apex.There", "CLEAR.NO". Anything else is part of a word or a number.
        return len(before) == 3 and following.isupper() and before.isalpha() and (before.islower() or before.isupper())
    if text[start] != ".":
        return True
    word = start
    while word and start - word < _WORD and (text[word - 1].isalnum() or text[word - 1] == "."):
        word -= 1
    last = text[word:start]
    if last.isdigit():
        return not _is_list_number(text, word)
    return not (last.lower() in _dotted() or (len(last) == 1 and last.isalpha()))


_WORD = 20
"""Longest word looked at before a full stop, so that a hostile text costs linear time."""


def _is_list_number(text: str, start: int) -> bool:
    before = text[max(0, start - 3) : start].rstrip(" (")
    return not before or before[-1] in ".!?:;\n"


@cache
def _dotted() -> frozenset[str]:
    return frozenset(load("abbreviations")["dotted"])


@cache
def _openings() -> frozenset[str]:
    return frozenset(load("spelling")["openings"])


class Folding(dict[str, str]):
    """Words of a text as the words of a vocabulary: a dictionary that works out what it does not know yet.

    A word is folded by the table of forms ("oedema", "visualised"), by its plural, and, for the long names of
    findings, by one slip of the typist ("pnuemothorax"). Two words are never folded because one is short.

    Args:
        vocabulary: words to fold to.
    """

    _ROOM = 50_000

    def __init__(self, vocabulary: Iterable[str]) -> None:
        spelling = load("spelling")
        self._forms = {form: word for word, forms in spelling["forms"].items() for form in forms.split()}
        self._known: set[str] = set()
        self._known = {self._inflected(word) for word in vocabulary}
        self._known = {self._inflected(word) for word in self._known}
        self._right = frozenset(spelling["right"].split())
        self._slips: dict[str, set[str]] = {}
        for word in spelling["mended"].split():
            for slip in _shorter(word):
                self._slips.setdefault(slip, set()).add(word)
        self._short = abbreviations()
        self._odd = _odd_pattern()
        super().__init__()

    def __missing__(self, word: str) -> str:
        if len(self) >= self._ROOM:  # a text of random letters must not fill the memory
            self.clear()
        hidden = len(word) >= 3 and not word.strip("0")
        folded = self[word] = "xxxx" if hidden else self._inflected(self._mended(word))
        return folded

    def phrase(self, words: Iterable[str]) -> tuple[str, ...]:
        """Words of a pattern as they are found in texts."""
        return tuple(self._inflected(word) for word in words)

    def __call__(self, text: str) -> list[str]:
        """The folded words and signs of one sentence."""
        return [self[word] for word in self.raw(text)]

    def raw(self, text: str) -> list[str]:
        """Words and signs in lower case, abbreviations written out, spelling as it was."""
        tokens = (self._odd if _ODD.search(text) else _TOKEN).findall(_masked(text))
        if self._short.keys().isdisjoint(tokens):
            return tokens
        return [word for token in tokens for word in self._short.get(token, (token,))]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where in ``text`` each word of ``self(text)`` stands; the words of one abbreviation share its place."""
        found = (self._odd if _ODD.search(text) else _TOKEN).finditer(_masked(text))
        return [match.span() for match in found for _ in self._short.get(match.group(), ("",))]

    def _inflected(self, word: str) -> str:
        word = self._forms.get(word, word)
        if word in self._known and not (word.endswith("s") and self._singular(word) != word):
            return word
        return self._forms.get(singular := self._singular(word), singular)

    def _singular(self, word: str) -> str:
        if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
            return word
        for ending, instead in (("ies", "y"), ("es", ""), ("s", "")):
            if word.endswith(ending) and word[: -len(ending)] + instead in self._known:
                return word[: -len(ending)] + instead
        return word

    def _mended(self, word: str) -> str:
        """The long word that ``word`` is one slip away from; itself where there is none, or two."""
        if len(word) < 7 or word in self._known or word in self._forms or word in self._right:
            return word
        if self._singular(word) in self._known:
            return word
        found = {right for slip in _shorter(word) for right in self._slips.get(slip, ()) if _one_slip(word, right)}
        return found.pop() if len(found) == 1 else word


def _masked(text: str) -> str:
    """``text`` in lower case and of the same length, with noughts in the place of what a scrubber hid."""
    if _HIDDEN.search(text):
        text = _HIDDEN.sub(lambda match: "0" * len(match.group()), text)
    if text.isascii():
        return text.lower()
    return "".join(low if len(low := c.lower()) == 1 else c for c in text)


def _shorter(word: str) -> set[str]:
    """``word`` and every word made by leaving out one letter but the first."""
    return {word, *(word[:k] + word[k + 1 :] for k in range(1, len(word)))}


def _one_slip(a: str, b: str) -> bool:
    """Whether one letter too many, too few, or two exchanged neighbours make ``a`` of ``b``; a wrong letter only in ten."""
    if abs(len(a) - len(b)) > 1:
        return False
    if len(a) == len(b):
        wrong = [k for k in range(len(a)) if a[k] != b[k]]
        if len(wrong) == 2 and wrong[1] == wrong[0] + 1:
            return a[wrong[0]] == b[wrong[1]] and a[wrong[1]] == b[wrong[0]]
        return len(wrong) <= 1 and len(a) >= 10
    short, long = sorted((a, b), key=len)
    k = next((k for k in range(len(short)) if short[k] != long[k]), len(short))
    return short[k:] == long[k + 1 :]


@cache
def abbreviations() -> dict[str, tuple[str, ...]]:
    """What each abbreviation stands for when a text is read, as words. Ambiguous ones are not in it."""
    return {short: tuple(long.split()) for short, long in load("abbreviations")["read"].items()}


_ODD = re.compile(r"[-/&+]")
_WORDS = r"[^\W\d_]+(?:'[a-z]+)?|\d+(?:\.\d+)?|[;:,()?/]"
_TOKEN = re.compile(_WORDS)


@cache
def _odd_pattern() -> re.Pattern[str]:
    """Words, numbers and the signs that mean something, short forms with a sign in them before all others.

    A hyphen within a word parts it. Texts without such signs need only ``_TOKEN``, which is four times as fast.
    """
    odd = sorted((short for short in abbreviations() if not short.isalpha()), key=len, reverse=True)
    special = "|".join(rf"(?<![a-z]){re.escape(short)}(?![a-z])" for short in odd)
    return re.compile(rf"{special}|\([-+]\)|{_WORDS}|(?<=\s)-+(?=\s)")
