"""Single changes of one line: side, degree, size, place, device.

Every function returns the changed text, or ``None`` where the line offers nothing to change or a change would say
something else as well. None of them checks what the change means: that is done by reading the whole report again.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import cache

from models.language.attributes import attributes, length_pattern
from models.language.draft import Line
from models.language.lexicon import Kind, lexicon
from models.language.mentions import read_sentence, spoken
from models.language.vocabulary import load
from models.studies.schema import Label

_LINK = frozenset(
    (
        "represent",
        "reflect",
        "compatible",
        "consistent",
        "versus",
        "suggest",
        "indicate",
        "due",
        "likely",
        "may",
        "could",
    )
)
_LINK |= {"might", "suspicious", "concerning", "favor", "secondary", "relate", "probable", "possible", "worrisome", "/"}
_APART = frozenset(("and", "with", ",", ";", "without", "plus"))


def cluster(line: Line, finding: str) -> frozenset[str]:
    """Classes that a line speaks of as one lesion with ``finding``: by the same words, or as what it may represent.

    Empty if the line also speaks of something else, of which a side or a degree might be.
    """
    mentions = line.reading.mentions
    named = [(m.start, m.end) for m in mentions if m.finding == finding]
    if not named or line.reading.other:
        return frozenset()
    tokens = line.reading.tokens
    for a, b in zip(mentions, mentions[1:]):
        if (a.start, a.end) == (b.start, b.end) or a.finding == b.finding:
            continue
        between = tokens[a.end : b.start]
        if not _LINK.intersection(between) or _APART.intersection(between):
            return frozenset()
    return line.findings()


_BREAKS = frozenset(
    ("or", "and", "versus", "/", ",", "with", "represent", "reflect", "suggest", "may", "could", "might", "likely")
)
_BREAKS |= {
    "most",
    "possible",
    "probable",
    "concerning",
    "suspicious",
    "xxxx",
    "which",
    "due",
    "secondary",
    "consistent",
    "compatible",
}
_DANGLING = _BREAKS | {
    "of",
    "for",
    "to",
    "in",
    "the",
    "a",
    "an",
    "be",
    "is",
    "are",
    "by",
    "at",
    "no",
    "as",
    "there",
    "relate",
    "favor",
    "less",
    "more",
}
_PLACING = frozenset(("in", "at", "on", "within", "along", "seen", "note", "see"))
_HELD = frozenset(("to", "of", "for", "with", "by", "be"))
"""Words that belong to the one before them: no cut begins there."""
_COORDINATES = frozenset(("or", "and", "versus", "/", ","))


def cut(line: Line, finding: str) -> str | None:
    """The line without the words that speak of ``finding``, if it then says of all else what it said.

    "Opacity at the left base, atelectasis or scarring" without Atelectasis is "Opacity at the left base, scarring".
    The shortest cut between two joints that leaves a sentence is taken.
    """
    reading, text = line.reading, line.text
    spans = [(m.start, m.end) for m in reading.mentions if m.finding == finding]
    if len(line.findings()) < 2 or not spans:
        return None
    tokens, places = reading.tokens, lexicon().fold.spans(text)
    low, high = spans[0][0], spans[-1][1]
    starts = [k for k in range(low + 1) if tokens[k] in _BREAKS or (k and tokens[k - 1] in _BREAKS)]
    ends = [k for k in range(high, len(tokens)) if tokens[k] in _BREAKS | _PLACING or tokens[k - 1] in _BREAKS]
    said = {name: label for name, label in spoken([reading]).items() if name != finding}
    known = {name: value for name, value in attributes(text, reading).items() if name != finding}
    choices = sorted(((a, b) for a in [0, *starts] for b in [*ends, len(tokens)]), key=lambda ab: (ab[1] - ab[0], ab))
    for a, b in choices:
        rest = [*tokens[:a], *tokens[b:]]
        if not rest or (b == len(tokens) and rest[-1] in _DANGLING) or tokens[a] in _HELD:
            continue
        if a == 0 and (rest[0] in _BREAKS or rest[0] in _PLACING):
            continue
        if a and b < len(tokens) and not _fits(tokens, a, b):
            continue
        left = text[: places[a][0]] if a < len(places) else text
        new = _tidy(left + (" " + text[places[b][0] :] if b < len(tokens) else "."))
        read = read_sentence(new)
        if read.other == reading.other and spoken([read]) == said and attributes(new, read) == known:
            return new
    return None


def _fits(tokens: Sequence[str], a: int, b: int) -> bool:
    """Whether what stands before word ``a`` may be followed by what stands from word ``b`` on."""
    if tokens[a - 1] in _DANGLING and tokens[b] in _BREAKS | _PLACING:
        return False
    if tokens[b] in _COORDINATES:  # "exam suggesting atelectasis or scarring" is no "exam or scarring"
        return tokens[a] in _COORDINATES and (tokens[a] != "," or tokens[b] == ",")
    return True


def _tidy(text: str) -> str:
    text = re.sub(r"\s+([.,;:])", r"\1", re.sub(r"\s+", " ", text)).strip(" ,;:/")
    text = re.sub(r"[,;:]\.$", ".", text)
    return text[:1].upper() + text[1:] if text else text


@cache
def _mirror() -> dict[str, str]:
    pairs = load("attributes")["mirror"]
    return {a: b for a, b in pairs} | {b: a for a, b in pairs}


def _swap(text: str, table: dict[str, str]) -> str:
    """Words of ``text`` exchanged by ``table`` (lower case), all at once, letter case and article seen to."""
    words = "|".join(sorted(map(re.escape, table), key=len, reverse=True))
    pattern = re.compile(rf"(?:\b(an?)(\s+))?(?<![\w'])({words})(?![\w'])", re.IGNORECASE)

    def exchanged(match: re.Match[str]) -> str:
        word = cased(match[3], table[match[3].lower()], text.isupper())
        return word if match[1] is None else f"{_article(match[1], word)}{match[2]}{word}"

    changed = pattern.sub(exchanged, text)
    return changed[:1].upper() + changed[1:] if text[:1].isupper() else changed


def _article(model: str, word: str) -> str:
    """ "a" or "an" as ``word`` asks for, in the letter case of ``model``."""
    vowel = re.match(r"[aeio]|u(?!ni|se|ti)|8|11\b|18\b", word.lower())
    if word.isupper() and len(word) > 1:  # an abbreviation is spelt: "an RLL opacity"
        vowel = re.match(r"[AEFHILMNORSX]", word)
    return cased(model, "an" if vowel else "a")


def cased(model: str, word: str, shouting: bool = False) -> str:
    """``word`` in the letter case of ``model``: capitals where the text shouts or the word is as short, else its first letter."""
    if model.isupper() and len(model) > 1 and (shouting or len(word) <= len(model) + 1):
        return word.upper()
    if model.isupper() and not shouting and len(model) > 1:
        return word
    return word[0].upper() + word[1:] if model[:1].isupper() else word


def mirror(line: Line) -> str | None:
    """The line with left and right exchanged; ``None`` without a side, or with a part that has one side only."""
    words = set(re.findall(r"[a-z]+", line.text.lower()))
    if words & frozenset(load("attributes")["one_sided"].split()):
        return None
    changed = _swap(line.text, _mirror())
    return changed if changed != line.text else None


def degree(line: Line, finding: str, up: bool) -> str | None:
    """The line with its degrees turned round: "small" for "large". ``up`` decides what becomes of "moderate"."""
    table = load("attributes")
    turned = {a: b for a, b in table["degrees"]}
    turned |= {b: a for a, b in reversed(table["degrees"]) if b not in turned}
    kind = "size" if finding in table["sized"] else "degree"
    turned |= {word: pair[kind][1 if up else 0] for word, pair in table["either"].items()}
    changed = _swap(line.text, turned)
    return changed if changed != line.text else None


def measurement(text: str, factor: float) -> str | None:
    """The text with every length multiplied by ``factor``, as many decimals as before."""

    def scaled(match: re.Match[str]) -> str:
        number = match.group()
        places = len(number.partition(".")[2])
        value = float(number) * factor
        return f"{value:.{places}f}" if round(value, places) > 0 else number

    changed = length_pattern().sub(lambda m: re.sub(r"\d+(?:\.\d+)?", scaled, m.group()), text)
    return changed if changed != text else None


def elsewhere(line: Line) -> str | None:
    """The line with another height in the lung: "lower" for "upper"."""
    pairs = load("wording")["places"]
    changed = _swap(line.text, {a: b for a, b in pairs} | {b: a for a, b in pairs})
    return changed if changed != line.text else None


def renamed_device(text: str, rng: random.Random) -> str | None:
    """The first device that has a name it may be mistaken for, under that name."""
    return _exchanged(text, load("wording")["devices"], rng)


def moved_device(text: str, rng: random.Random) -> str | None:
    """The end of a device somewhere it should not be."""
    return _exchanged(text, load("wording")["positions"], rng)


def _exchanged(text: str, table: dict[str, list[str]], rng: random.Random) -> str | None:
    for name in sorted(table, key=lambda name: (-len(name), name)):
        if re.search(rf"(?<![\w']){re.escape(name)}(?![\w'])", text, re.IGNORECASE):
            return _swap(text, {name: rng.choice(table[name])})
    return None


def degree_line(line: Line) -> bool:
    """Whether every word of degree in the line stands with its finding: before it, or behind a verb."""
    tokens = line.reading.tokens
    named = [(m.start, m.end) for m in line.reading.mentions if m.label is not Label.ABSENT]
    table = load("attributes")
    words = {word for pair in table["degrees"] for word in pair} | set(table["either"])
    hits = lexicon().scan(tokens)
    taken = {k for placed in (hits[Kind.SUBJECT], hits[Kind.PREDICATE]) for a, b, _ in placed for k in range(a, b)}
    moving = frozenset(table["moving"].split())
    for place, token in enumerate(tokens):
        if token not in words or place in taken:
            continue
        if moving.intersection(tokens[place + 1 : place + 3]):  # "slightly increased" is no degree of the finding
            return False
        before = any(place < a and not _APART.intersection(tokens[place:a]) for a, _ in named)
        behind = any(b <= place and {"be", "appear", "remain"}.intersection(tokens[b:place]) for _, b in named)
        inside = any(a <= place < b for a, b in named)
        if not (before or behind or inside):
            return False
    return bool(named)
