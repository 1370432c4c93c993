"""Side, degree and size of each finding of a sentence.

What an edit may change, and what a check of it looks at: after a change of side the sides of one finding must be
mirrored and nothing else may differ.

    attributes("Small left effusion and 8 mm right nodule.")["Lung Lesion"]
    # Attributes(sides=frozenset({'right'}), degrees=frozenset(), sizes=frozenset({'8 mm'}))
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

from models.language.mentions import Mention, Reading, read_sentence
from models.language.vocabulary import load

_REACH = 12
"""Words within which a side or a degree belongs to a finding."""
_PARTS = frozenset((",", ";", "and", "with", "but", "or", "without"))


class Attributes(NamedTuple):
    """What is said of one finding.

    Attributes:
        sides: of left, right.
        degrees: words such as small, mild, moderate.
        sizes: lengths as "8 mm", as written.
    """

    sides: frozenset[str]
    degrees: frozenset[str]
    sizes: frozenset[str]


@cache
def degree_words() -> frozenset[str]:
    """Every word of degree, as written."""
    table = load("attributes")
    return frozenset(word for pair in table["degrees"] for word in pair) | frozenset(table["either"])


@cache
def length_pattern() -> re.Pattern[str]:
    """A length, with up to three dimensions: "22 x 14 mm"."""
    units = "|".join(sorted(load("attributes")["units"], key=len, reverse=True))
    number = r"\d+(?:\.\d+)?"
    return re.compile(rf"(?<![\w.]){number}(?:\s*(?:x|by|\u00d7)\s*{number}){{0,2}}[\s-]*(?:{units})\b", re.IGNORECASE)


def attributes(sentence: str, reading: Reading | None = None) -> dict[str, Attributes]:
    """Attributes of each finding that ``sentence`` asserts or leaves open; each word goes to the nearest finding."""
    reading = reading or read_sentence(sentence)
    found: dict[str, tuple[set[str], set[str], set[str]]] = {}
    asserted = [mention for mention in reading.mentions if mention.label != 0]
    for mention in asserted:
        found.setdefault(mention.finding, (set(), set(), set()))
    degrees = degree_words()
    tokens = reading.tokens
    for place, word in enumerate(tokens):
        kind = 0 if word in ("left", "right") else 1 if word in degrees else None
        if kind is not None:
            nearest = _nearest(asserted, tokens, place)
            for mention in _beside(asserted, tokens, nearest, place) if kind == 0 else nearest:
                found[mention.finding][kind].add(word)
    sizes = {" ".join(match.group().lower().split()) for match in length_pattern().finditer(sentence)}
    if sizes and asserted:
        for finding in {mention.finding for mention in asserted}:
            found[finding][2].update(sizes)
    return {finding: Attributes(*map(frozenset, kinds)) for finding, kinds in found.items()}


def merged(parts: Iterable[dict[str, Attributes]]) -> dict[str, Attributes]:
    """Attributes of several sentences together."""
    out: dict[str, Attributes] = {}
    for part in parts:
        for finding, new in part.items():
            old = out.get(finding)
            out[finding] = new if old is None else Attributes(*(a | b for a, b in zip(old, new)))
    return out


def _nearest(mentions: Sequence[Mention], tokens: Sequence[str], place: int) -> list[Mention]:
    """The mentions (several if they share their words) that the word at ``place`` most likely belongs to."""
    best, distance = [], _REACH + 1.0
    for mention in mentions:
        gap = mention.start - place if place < mention.start else place - mention.end + 1 if place >= mention.end else 0
        between = tokens[place + 1 : mention.start] if place < mention.start else tokens[mention.end : place]
        cost = gap + 4 * sum(word in _PARTS for word in between)  # a joint is a longer way than a word
        if cost < distance:
            best, distance = [mention], cost
        elif best and (mention.start, mention.end) == (best[0].start, best[0].end):
            best.append(mention)
    return best


def _beside(mentions: Sequence[Mention], tokens: Sequence[str], chosen: list[Mention], place: int) -> list[Mention]:
    """``chosen`` and what shares its place: the other choice ("scarring or atelectasis in the left base"), or what is
    joined to it before a place that follows ("consolidation and atelectasis in the left base").
    """
    group = list(chosen)
    for _ in range(2):
        for mention in mentions:
            if mention not in group and any(_shares_place(mention, member, tokens, place) for member in group):
                group.append(mention)
    return group


def _shares_place(a: Mention, b: Mention, tokens: Sequence[str], place: int) -> bool:
    first, second = (a, b) if a.start <= b.start else (b, a)
    between = tokens[first.end : second.start]
    if len(between) > 4 or "," in between:
        return False
    follows = place >= second.end and not _PREPOSITIONS.isdisjoint(tokens[second.end : place])
    joints = {"or", "versus", "/", "and"} if follows else {"or", "versus", "/"}
    return not joints.isdisjoint(between) and {"left", "right"}.isdisjoint(between)


_PREPOSITIONS = frozenset(("in", "at", "of", "within", "along", "over", "involving", "on"))
