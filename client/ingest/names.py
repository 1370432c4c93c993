"""Finds the names of a DICOM header in a report, wherever they stand.

A part of a header name is *strong* when it can only be a name; it is found everywhere. A part that is also
a word of radiology English ("Long", "May") or has two letters ("Li") is *weak*: it is found beside another
part of a name or behind a title, or where it is capitalised within a sentence. Case and accents do not
matter; "Müller" is also found as "Mueller" and "Muller".

**Not found**: in a report written in capitals, a weak name that stands alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from client.ingest.words import PARTICLES, RADIOLOGY, TITLES

Span = tuple[int, int]

_SPECIAL = {"ß": "ss", "ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "\u0131": "i"}
_UMLAUTS = (("ae", "a"), ("oe", "o"), ("ue", "u"))
_BEGIN, _END = r"(?<![^\W_])", r"(?![^\W_])"
APOSTROPHES = "'\u2019\u02bc`\u00b4"
_WIDE = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\u0e00-\u0e7f]")
"""Scripts that write no space between words: Chinese, Japanese, Korean, Thai."""
_SEPARATOR = r"[\s,^\-]{1,3}"
_NO_INITIALS = frozenset(
    ("am", "pm", "eg", "ie", "iv", "im", "po", "qd", "ct", "us", "md", "ap", "pa", "dr", "st", "no")
)


def fold(text: str) -> tuple[str, Sequence[int]]:
    """``text`` in lower case without accents, and for every character its place in ``text``."""
    if text.isascii():
        return text.lower(), range(len(text))
    letters: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        plain = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
        for letter in "".join(_SPECIAL.get(c, c) for c in plain.lower()):
            letters.append(letter)
            places.append(place)
    return "".join(letters), places


def mostly_upper(text: str) -> bool:
    """Whether a text is written in capitals, so that a capital says nothing."""
    letters = [c for c in text if c.isalpha()]
    return sum(c.isupper() for c in letters) > 0.8 * max(len(letters), 1)


def sentence_start(text: str, position: int) -> bool:
    """Whether a capital at ``position`` may be the sentence's."""
    before = text[max(0, position - 40) : position].rstrip(" \t\"'(*-")
    return not before or before[-1] in ".:;!?\n\r\u2022" or bool(re.search(r"\d[.)]$", before))


@dataclass(frozen=True)
class _Parts:
    strong: frozenset[str]  # regular expressions, folded
    weak: frozenset[str]
    initials: frozenset[str]
    pairs: frozenset[str]  # two initials, "js"


class HeaderNames:
    """Finds the names of one header.

    Args:
        names: PN values: components by ``^``, groups by ``=``, several names by a backslash.
    """

    def __init__(self, names: Iterable[str]) -> None:
        parts = _parts(names)
        words = parts.strong | parts.weak
        self._weak = frozenset(parts.weak)
        self._patterns: list[re.Pattern[str]] = []
        if parts.strong:
            self._patterns.append(re.compile(f"{_BEGIN}(?:{_either(parts.strong)}){_END}"))
        if words:
            before = rf"(?:[{''.join(parts.initials)}]\.[\s]?)?" if parts.initials else ""
            behind = rf"(?:,?\s[{''.join(parts.initials)}](?:\.|{_END}))?" if parts.initials else ""
            run = f"{_BEGIN}{before}(?:{_either(words)})(?:{_SEPARATOR}(?:{_either(words)}))*{_END}{behind}"
            self._runs: re.Pattern[str] | None = re.compile(run)
            self._word = re.compile(f"{_BEGIN}(?:{_either(words)}){_END}")
        else:
            self._runs = None
        pairs = [rf"{pair[0]}\.\s?{pair[1]}\." for pair in sorted(parts.pairs - _NO_INITIALS)]
        if pairs:
            self._patterns.append(re.compile(f"{_BEGIN}(?:{'|'.join(pairs)})"))

    def find(self, text: str) -> Iterator[Span]:
        """Places of names in ``text``."""
        folded, places = fold(text)
        shouted = mostly_upper(text)
        for pattern in self._patterns:
            for match in pattern.finditer(folded):
                yield _original(places, match.span(), text)
        if self._runs is None:
            return
        for match in self._runs.finditer(folded):
            span = _original(places, match.span(), text)
            words = self._word.findall(match.group())
            alone = len(words) == 1
            if not alone and self._together(text, span, words):
                yield span
            elif alone and any(re.fullmatch(part, words[0]) for part in self._weak):
                initial = len(match.group()) > len(words[0]) and text[span[0]].isupper()
                inner = self._word.search(folded, match.start())
                assert inner is not None
                word = _original(places, inner.span(), text)
                if (initial and text[word[0]].isupper()) or _stands_as_name(text, word, shouted):
                    yield span
            elif alone and re.search(r"\b[^\W\d_]\b", text[span[0] : span[1]]):
                yield span  # a strong part with an initial

    def _together(self, text: str, span: Span, words: list[str]) -> bool:
        """Whether neighbours are a name: one is strong, or all are capitalised ("the long white line" is
        none).
        """
        if any(word not in RADIOLOGY and word not in PARTICLES and len(word) > 2 for word in words):
            return True
        return all(word[0].isupper() for word in re.findall(r"[^\W\d_]+", text[span[0] : span[1]]))


def _parts(names: Iterable[str]) -> _Parts:
    strong: set[str] = set()
    weak: set[str] = set()
    initials: set[str] = set()
    pairs: set[str] = set()
    for name in (one for value in names for one in re.split(r"[\\=]", value)):
        components = [fold(component)[0] for component in name.split("^")]
        firsts = [component.strip()[:1] for component in components[:3]]
        if len(firsts) > 1 and all(first.isalpha() for first in firsts[:2]):
            pairs |= {firsts[1] + firsts[0], firsts[0] + firsts[1]}
        if _WIDE.search(name):
            joined = re.sub(r"[\s^]", "", "".join(components[:2]))
            strong |= {re.escape(w) for w in (joined, *components[:2]) if len(w) > 1}
            continue
        for component in components:
            for word in re.split(r"[\s,;./()\"]+", component):
                pieces = [piece for piece in word.split("-") if piece]
                for piece in (*pieces, *(["".join(pieces)] if len(pieces) > 1 else [])):
                    _sort(piece, strong, weak, initials)
        family, given = (_glued(c) for c in ([*components, ""])[:2])
        if family and given:
            strong |= {family + given, given + family}
    return _Parts(frozenset(strong), frozenset(weak - strong), frozenset(initials), frozenset(pairs))


def _sort(piece: str, strong: set[str], weak: set[str], initials: set[str]) -> None:
    plain = piece.strip(APOSTROPHES)
    bare = re.sub(f"[{APOSTROPHES}]", "", plain)
    if not bare or bare in TITLES or not any(c.isalpha() for c in bare):
        return
    if bare[0].isalpha() and bare[0].isascii():
        initials.add(bare[0])
    if len(bare) == 1:
        return
    forms = {plain, *(_replaced(plain, long, short) for long, short in _UMLAUTS)}
    forms |= {_replaced(plain, short, long) for long, short in _UMLAUTS if len(plain) > 3}
    common = bare in RADIOLOGY or bare in PARTICLES or len(bare) == 2
    for form in forms:
        if not common and (form == plain or (len(form) > 3 and form not in RADIOLOGY)):
            strong.add(_loose(form))
        elif form == plain:
            weak.add(_loose(form))


def _glued(component: str) -> str:
    """A component whose words may be run together: ``o'?brien``; empty for an initial."""
    words = re.findall(r"[^\W_]+", component)
    return r"[\W_]?".join(re.escape(word) for word in words) if len("".join(words)) > 1 else ""


def _replaced(word: str, old: str, new: str) -> str:
    return word.replace(old, new)


def _loose(word: str) -> str:
    """An apostrophe may be any, a space or nothing: O'Brien, OBrien, O Brien."""
    parts = re.split(f"[{APOSTROPHES}]", word)
    return f"[{APOSTROPHES} ]?".join(re.escape(part) for part in parts)


def _either(patterns: Iterable[str]) -> str:
    return "|".join(sorted(patterns, key=lambda p: (-len(p), p)))


def _original(places: Sequence[int], span: Span, text: str) -> Span:
    start, end = places[span[0]], places[span[1] - 1] + 1
    while end < len(text) and unicodedata.combining(text[end]):
        end += 1
    return start, end


def _stands_as_name(text: str, span: Span, shouted: bool) -> bool:
    """Whether a word that is also plain English stands where a name would."""
    word, before, behind = (
        text[slice(*span)],
        text[max(0, span[0] - 20) : span[0]],
        text[span[1] : span[1] + 1],
    )
    if re.search(r"\b(?:mrs?|ms|miss|dr|prof|patient|pt|name|doctor|nurse)\b[.:]?\s*$", before, re.IGNORECASE):
        return word[0].isupper()
    capitalised = word[0].isupper() and word[1:].islower()
    if capitalised and len(word) == 2 and word.lower() not in RADIOLOGY:
        return True  # "Li" is no English word
    hyphened = before.endswith("-") or behind == "-"  # "X-Ray", "Swan-Ganz"
    return capitalised and not shouted and not hyphened and not sentence_start(text, span[0])
