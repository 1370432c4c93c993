"""Whether a sentence asserts, denies or leaves open what one of its phrases names.

NegEx (Chapman et al. 2001) with ends of reach, on folded words, and with two components, denial and doubt, that
look at each other: of two cues before a finding the nearer one decides, except that "no opacity suggestive of
pneumonia" denies and "no effusion, cannot exclude pneumonia" leaves open.

    polarity("No effusion; small PTX cannot be excluded.", "PTX")   # Label.UNCERTAIN
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

from models.language.lexicon import Kind, Placed, Role, lexicon
from models.studies.schema import Label

_JOINS = frozenset(("or", "nor", "and"))
_REACH_OF_VERSUS = 8
_end = itemgetter(1)


class Verdict(NamedTuple):
    """A polarity (PRESENT, ABSENT or UNCERTAIN) and, where it is UNCERTAIN, whether it is more likely than not."""

    label: Label
    probable: bool = False


_ASSERTED, _DENIED = Verdict(Label.PRESENT), Verdict(Label.ABSENT)


class Scopes:
    """The cues of one sentence and how far they reach.

    Args:
        tokens: folded words of the sentence.
        found: the phrases in it, from :meth:`Lexicon.scan`.
    """

    __slots__ = ("_commas", "_cueless", "_found", "_tokens")

    def __init__(self, tokens: Sequence[str], found: Sequence[list[Placed]]) -> None:
        self._tokens, self._found = tokens, found
        self._commas = [place for place, token in enumerate(tokens) if token == ","]
        self._cueless = not any(found[Kind.DENY_BEFORE : Kind.DOUBT_AFTER + 1])

    def of(self, start: int, end: int) -> Verdict:
        """Verdict on the phrase of words ``start`` to ``end`` (the word after its last)."""
        if self._cueless:
            return _ASSERTED
        found = self._found
        low, high = _last_end(found[Kind.END], start), len(self._tokens)
        for at, _, _ in found[Kind.END]:
            if at >= end:
                high = at
                break
        low = self._opened(low, start, high)
        denial = _last(found[Kind.DENY_BEFORE], max(low, _last_end(found[Kind.END_DENIAL], start)), start)
        doubt = _last(found[Kind.DOUBT_BEFORE], low, start)
        later_doubt = self._later_doubt(end, high)
        if later_doubt is not None:
            return Verdict(Label.UNCERTAIN, later_doubt.probable)
        if denial is not None and (doubt is None or denial[0] > doubt[0] or doubt[1].soft):
            return _DENIED
        if doubt is not None:
            return Verdict(Label.UNCERTAIN, doubt[1].probable)
        return _DENIED if self._denied_later(end, high) else _ASSERTED

    def _opened(self, low: int, start: int, high: int) -> int:
        """Where the statement that holds word ``start`` opens, if a comma opens one after ``low``."""
        tokens = self._tokens
        for place in reversed(self._commas):
            if place >= start:
                continue
            if place <= low:
                break
            after = place + 1
            if after < start and tokens[after] == "and":
                after += 1
            if after <= start and tokens[after] in lexicon().openings and "or" not in tokens[after:high]:
                return place + 1
        return low

    def _denied_later(self, end: int, high: int) -> bool:
        return any(
            self._reaches_back(end, start) and (not role.closing or self._closes(stop, high))
            for start, stop, role in self._found[Kind.DENY_AFTER]
            if start >= end and stop <= high
        )

    def _later_doubt(self, end: int, high: int) -> Role | None:
        for start, stop, role in self._found[Kind.DOUBT_AFTER]:
            if start < end or stop > high or not self._reaches_back(end, start):
                continue
            if role.closing and not self._closes(stop, high):
                continue
            if self._tokens[start] == "versus" and start - end > _REACH_OF_VERSUS:
                continue
            return role
        return None

    def _closes(self, stop: int, high: int) -> bool:
        """Whether nothing but punctuation follows in this part of the sentence."""
        return stop == high or self._tokens[stop] in (",", ")")

    def _reaches_back(self, end: int, start: int) -> bool:
        """Whether a cue at ``start`` reaches back to a phrase that ends at ``end``: over commas of a list only."""
        between = self._tokens[end:start]
        if "," not in between or between == [","]:
            return True
        last = len(between) - 1 - list(reversed(between)).index(",")
        return not _JOINS.isdisjoint(between[last:])


def _last(cues: list[Placed], low: int, high: int) -> tuple[int, Role] | None:
    """The last cue that ends by ``high``, if it begins at ``low`` or later."""
    at = bisect_right(cues, high, key=_end) - 1  # phrases of one kind do not overlap, so their ends ascend
    if at < 0 or cues[at][0] < low:
        return None
    return cues[at][0], cues[at][2]


def _last_end(ends: list[Placed], before: int) -> int:
    at = bisect_right(ends, before, key=_end)
    return ends[at - 1][1] if at else 0


def polarity(sentence: str, phrase: str | tuple[int, int]) -> Label:
    """Polarity of ``phrase`` in ``sentence``: a string in it (the first place counts) or its (start, end) characters.

    The phrase may be any words, not only the name of a finding: what stands in it is not taken for a cue.

    Returns:
        PRESENT, ABSENT or UNCERTAIN.

    Raises:
        ValueError: if the phrase does not stand in the sentence.
    """
    if isinstance(phrase, str):
        place = re.search(re.escape(phrase), sentence, re.IGNORECASE)
        if place is None or not phrase:
            raise ValueError(
                f"phrase {phrase!r}: does not stand in the sentence; give words of it, or their (start, end)"
            )
        span = place.span()
    else:
        span = phrase
        if not 0 <= span[0] < span[1] <= len(sentence):
            raise ValueError(f"phrase {span}: outside of the sentence of {len(sentence)} characters")
    words = lexicon()
    before, named, after = (
        words.fold(part) for part in (sentence[: span[0]], sentence[slice(*span)], sentence[span[1] :])
    )
    tokens = [*before, *("\0" for _ in named or [""]), *after]
    start, end = len(before), len(tokens) - len(after)
    return Scopes(tokens, words.scan(tokens)).of(start, end).label
