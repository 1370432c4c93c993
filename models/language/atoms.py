"""Sentences with several findings as sentences with one.

    atoms("No effusion, pneumothorax or focal consolidation is seen.")
    # ['No effusion is seen.', 'No pneumothorax is seen.', 'No focal consolidation is seen.']

A denial and what is said of a list go to each of its items; a place behind the list does too. A split is taken
only if its parts, read again, say of every finding what the sentence said, with the same side and degree. Where a
word before the list might belong to all of it ("bibasilar atelectasis and scarring"), nothing is split.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from models.language.attributes import attributes, degree_words, merged
from models.language.lexicon import Kind, lexicon
from models.language.mentions import Reading, read_sentence, spoken
from models.language.vocabulary import load
from models.studies.schema import Label

_STRONG = re.compile(r"\s*;\s*|,?\s+(?:but|however|while|whereas|although)[,\s]+", re.IGNORECASE)
_WITHOUT = re.compile(r",?\s+(?=without\b)", re.IGNORECASE)
_WITH = re.compile(r",?\s+with\s+(?!no\b|the exception|respect|regard)", re.IGNORECASE)
_WITH_NO = re.compile(r",?\s+with\s+(?=no\b)", re.IGNORECASE)
_AND = re.compile(r",\s*and\s+|\s+and\s+|,\s+", re.IGNORECASE)
_ITEM = re.compile(r"\s*,\s*(?:and/or|or|and|nor)\s+|\s+(?:and/or|or|nor|and)\s+|\s*,\s+", re.IGNORECASE)
_LEAD = re.compile(r"^(?:and|or|nor|also|then)\b[\s,]*", re.IGNORECASE)
_DEPTH = 6
"""Most splits one inside the other; no sentence needs more."""


def atoms(sentence: str) -> list[str]:
    """``sentence`` in parts of one finding each, as far as that is safe; itself where it is not. Never empty."""
    return _split(sentence, read_sentence(sentence), _DEPTH)


def _split(sentence: str, reading: Reading, depth: int) -> list[str]:
    if len({mention.finding for mention in reading.mentions}) < 2 or depth == 0:
        return [sentence]
    for way in (_at(_STRONG), _at(_WITHOUT), _denied_list, _said_list, _at(_WITH_NO), _at(_WITH), _joined):
        parts = way(sentence, reading)
        if parts and len(parts) > 1 and same(sentence, reading, parts):
            return [atom for part in parts for atom in _split(part, read_sentence(part), depth - 1)]
    return [sentence]


def same(sentence: str, reading: Reading, parts: Sequence[str]) -> bool:
    """Whether ``parts`` say of every finding what ``sentence`` says, with side, degree and size."""
    readings = [read_sentence(part) for part in parts]
    if not all(r.mentions or r.other or r.normal or _speaks(r) for r in readings):
        return False
    if spoken([reading]) != spoken(readings) or reading.other != any(r.other for r in readings):
        return False
    return attributes(sentence, reading) == merged(attributes(p, r) for p, r in zip(parts, readings))


def _speaks(reading: Reading) -> bool:
    """Whether a part without a finding stands by itself: it ends in a noun that can be denied."""
    words = [word for word in reading.tokens if word.isalpha()]
    if not words:
        return False
    return words[-1] in _NOUNS or not _SAID.isdisjoint(words) or bool(lexicon().scan(reading.tokens)[Kind.TERM])


_NOUNS = frozenset(("abnormality", "disease", "process", "finding", "lesion", "change", "pathology"))
_NOUNS |= {noun + "s" for noun in _NOUNS} | {"abnormalities"}
_SAID = frozenset(("normal", "unremarkable", "clear", "stable", "intact", "unchanged", "midline"))
_FIRST_ONLY = re.compile(
    r"(?:\s+(?:focal|large|discrete|acute|suspicious|displaced|sizable|gross|frank|overt))+$", re.IGNORECASE
)
"""Words between a denial and the first of a list that say something of the first only."""
_OWN = re.compile(r"(?:no|without|not|absent)\b", re.IGNORECASE)


def _at(pattern: re.Pattern[str]):
    def way(sentence: str, reading: Reading) -> list[str]:
        match = next((m for m in pattern.finditer(sentence) if _free(sentence, m.start(), m.end())), None)
        if match is None:
            return []
        left, right = sentence[: match.start()], sentence[match.end() :]
        if pattern is _WITH and (_shares(left, right) or _classes(left) == _classes(right)):
            return []
        return [_sentence(left), _sentence(right)]

    return way


def _free(sentence: str, start: int, end: int) -> bool:
    """Whether a joint is outside of brackets and not part of "consistent with" and its like."""
    before = sentence[:start].rstrip().lower()
    if before.count("(") > before.count(")"):
        return False
    return not before.endswith(
        ("consistent", "compatible", "compared", "associated", "correlate", "patient", "correlation")
    )


def _denied_list(sentence: str, reading: Reading) -> list[str]:
    """ "No A, B or C is seen": every item with the denial before it and what follows the list."""
    if any(mention.label is not Label.ABSENT for mention in reading.mentions):
        return []
    words = lexicon()
    tokens = reading.tokens
    found = words.scan(tokens)
    first = min(mention.start for mention in reading.mentions)
    cues = [end for _, end, _ in found[Kind.DENY_BEFORE] if end <= first]
    if not cues:
        return []
    places = words.fold.spans(sentence)
    start = places[cues[-1] - 1][1]
    last = max(mention.end for mention in reading.mentions)
    stop = _list_end(sentence, places, tokens, last)
    head, body, tail = sentence[:start], sentence[start:stop].strip(), sentence[stop:]
    items = [item for item in _ITEM.split(body) if item]
    if len(items) < 2:
        return []
    bare = _FIRST_ONLY.sub("", head)
    heads = [head, *("" if _OWN.match(item) else bare for item in items[1:])]
    return [_sentence(f"{lead} {item}{_agreeing(tail, item)}") for lead, item in zip(heads, items)]


def _list_end(sentence: str, places: Sequence[tuple[int, int]], tokens: Sequence[str], last: int) -> int:
    """Where a list ends whose last finding ends before word ``last``: items without a finding may follow."""
    place = last
    while place < len(tokens) and tokens[place] not in _TAIL:
        place += 1
    return places[place][0] if place < len(tokens) else len(sentence.rstrip(" ."))


_TAIL = frozenset(("be", "see", "identify", "present", "note", "visualize", "evident", "demonstrate", "appreciate"))
_TAIL |= {"detect", "in", "on", "at", "within", "have", "to", "which", "that", "can", "(", ";", ":"}


def _agreeing(tail: str, subject: str) -> str:
    """``tail`` with its verb in the number of ``subject``."""
    plural = subject.rstrip(" .").lower().endswith("s") and not subject.lower().rstrip(" .").endswith(
        ("is", "ss", "us")
    )
    for one, many in (("is", "are"), ("was", "were"), ("has", "have"), ("appears", "appear"), ("remains", "remain")):
        wrong, right = (one, many) if plural else (many, one)
        changed = re.sub(rf"^(\s*){wrong}\b", rf"\g<1>{right}", tail)
        if changed != tail:
            return changed if changed.startswith(" ") else " " + changed
    return tail if not tail or tail[0] in " .,;" else " " + tail


def _said_list(sentence: str, reading: Reading) -> list[str]:
    """ "The heart and mediastinum are normal": every subject with the predicate."""
    words = lexicon()
    found = words.scan(reading.tokens)
    subjects, predicates = found[Kind.SUBJECT], found[Kind.PREDICATE]
    if len(subjects) < 2 or len(predicates) != 1:
        return []
    places = words.fold.spans(sentence)
    (start, end, _), first, last = predicates[0], subjects[0], subjects[-1]
    if start >= last[1]:
        head, tail = sentence[: places[first[0]][0]], sentence[places[last[1] - 1][1] :]
        if head.strip().lower() not in ("", "the", "both the", "overall", "overall,"):
            return []
        return [_sentence(head + name + _agreeing(tail, name)) for name in _names(sentence, places, subjects)]
    if end <= first[0]:
        head, tail = sentence[: places[end - 1][1]], sentence[places[last[1] - 1][1] :]
        return [_sentence(f"{head} {name}{tail}") for name in _names(sentence, places, subjects)]
    return []


def _names(sentence: str, places: Sequence[tuple[int, int]], subjects: Sequence[tuple[int, int, object]]) -> list[str]:
    return [sentence[places[start][0] : places[end - 1][1]] for start, end, _ in subjects]


def _joined(sentence: str, reading: Reading) -> list[str]:
    """ "Cardiomegaly and small effusion", "A, B and C": at the first joint that has a finding on both sides."""
    places = lexicon().fold.spans(sentence)
    ends = [(places[m.start][0], places[m.end - 1][1]) for m in reading.mentions]
    for match in _AND.finditer(sentence):
        if not _free(sentence, match.start(), match.end()) or any(
            a < match.end() and match.start() < b for a, b in ends
        ):
            continue
        if not any(b <= match.start() for _, b in ends) or not any(a >= match.end() for a, _ in ends):
            continue
        left, right = sentence[: match.start()], sentence[match.end() :]
        if _shares(left, right) or _classes(left) == _classes(right):
            continue
        return [_sentence(left + _tail_place(left, right)), _sentence(right)]
    return []


def _shares(left: str, right: str) -> bool:
    """Whether a modifier before the first of two findings may belong to both: the second has none of its own."""
    placed = frozenset(load("attributes")["places"].split())
    a, b = _bare_words(left), _bare_words(right)
    if a & degree_words() and not b & (degree_words() | placed):
        return True
    return bool(a & placed and not b & placed) and not (_siteless(left) or _siteless(right))


def _classes(text: str) -> frozenset[str]:
    return frozenset(mention.finding for mention in read_sentence(text).mentions)


def _bare_words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]+", text.lower()))


def _siteless(text: str) -> bool:
    named = _classes(text)
    return bool(named) and named <= {*load("attributes")["sideless"], "Support Devices"}


def _tail_place(left: str, right: str) -> str:
    """The place behind the second finding, if the first has none: it belongs to both."""
    placed = frozenset(load("attributes")["places"].split())
    if _bare_words(left) & placed or _siteless(left):
        return ""
    tails = "|".join(re.escape(tail) for tail in sorted(load("attributes")["place_tail"], key=len, reverse=True))
    match = re.search(rf"\s+(?:{tails})(?:\s+[\w-]+){{0,5}}\s*\.?$", right, re.IGNORECASE)
    return match.group().rstrip(" .") if match and _bare_words(match.group()) & placed else ""


def _sentence(part: str) -> str:
    """``part`` with a capital and a full stop."""
    part = re.sub(r"\.{2,}$", ".", re.sub(r"\s+", " ", part).strip(" ,;:"))
    part = _LEAD.sub("", part)
    part = re.sub(r"^without(?: any)?(?= )", "No", part, flags=re.IGNORECASE)
    if not part:
        return ""
    part = part[0].upper() + part[1:]
    return part if part[-1] in ".!?" else part + "."
