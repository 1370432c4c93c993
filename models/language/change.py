"""What has changed since the film before, in the words of reports.

    progression("Right effusion is larger; left effusion has resolved. Stable cardiomegaly.")
    # {'Cardiomegaly': 'stable', ...}: the two effusions go different ways, so Pleural Effusion is left out

A word of change belongs to the nearest finding; a denied one makes the finding stable ("has not improved"). New
counts as worsened and resolved as improved where three classes are asked for, as in MS-CXR-T.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Literal, NamedTuple

from models.language.labeller import label_report, read_report
from models.language.lexicon import lexicon
from models.language.mentions import Mention, Reading, read_sentence
from models.language.sections import Sections
from models.language.tokens import sentences
from models.language.vocabulary import expand, load
from models.studies.schema import CHEXPERT, Label

Course = Literal["improved", "stable", "worsened", "new", "resolved"]
Progress = Literal["improved", "stable", "worsened"]

THREE: Mapping[Course, Progress] = {
    "improved": "improved",
    "stable": "stable",
    "worsened": "worsened",
    "new": "worsened",
    "resolved": "improved",
}
"""Each course as one of three."""

INVERSE: Mapping[Course, Course] = {
    "improved": "worsened",
    "worsened": "improved",
    "new": "resolved",
    "resolved": "new",
    "stable": "stable",
}
"""What a course becomes when the two films change places; its own inverse."""

_REACH = 12
_JOINTS = frozenset((",", ";", "and", "with", "but", "without", "or"))
_DENIALS = frozenset(("no", "not", "without", "never", "nor"))
_WORD = re.compile(r"[a-z]+")


class Change(NamedTuple):
    """Whether two films differ, and why.

    Attributes:
        changed: the binary flag.
        reasons: one line each: ``"Edema: worsened"``, or ``"Pneumothorax: absent, now present"``.
    """

    changed: bool
    reasons: tuple[str, ...]


@cache
def keywords() -> frozenset[str]:
    """The 44 temporal keywords."""
    return frozenset(load("change")["keywords"].split())


def temporal_keywords(text: str) -> frozenset[str]:
    """Which of the 44 keywords stand in ``text``, as words of their own."""
    return keywords() & frozenset(_WORD.findall(text.lower()))


def keyword_match(reference: str, candidate: str) -> tuple[float, float, float]:
    """Precision, recall and F1 of the candidate's temporal keywords (TEM; Bannur et al. 2023).

    Two texts without any keyword agree (1); one with and one without do not (0).
    """
    a, b = temporal_keywords(reference), temporal_keywords(candidate)
    if not a or not b:
        value = float(a == b)
        return value, value, value
    precision, recall = len(a & b) / len(b), len(a & b) / len(a)
    return precision, recall, 0.0 if not a & b else 2 * precision * recall / (precision + recall)


def courses(report: str | Sections) -> list[tuple[str, Course]]:
    """(finding, course) for every finding of every sentence that has one, in the order of the report."""
    return [pair for said in read_report(report) for pair in sentence_courses(said.sentence.text, said.reading)]


def progression(report: str | Sections) -> dict[str, Progress]:
    """Improved, stable or worsened for each finding of which the report says so.

    Of several sentences the strict majority counts; where there is none the finding is left out.
    """
    votes: dict[str, Counter[Progress]] = {}
    for finding, course in courses(report):
        votes.setdefault(finding, Counter())[THREE[course]] += 1
    found = {}
    for finding in CHEXPERT:
        ranked = votes.get(finding, Counter()).most_common(2)
        if ranked and (len(ranked) == 1 or ranked[0][1] > ranked[1][1]):
            found[finding] = ranked[0][0]
    return found


def change_flag(current: str | Sections, prior: str | Sections | None = None) -> Change:
    """Whether the current report tells of a change since the prior film.

    It does if it says that a finding has improved, worsened, appeared or gone, or, with ``prior`` given, if one
    report says a finding is present and the other that it is absent. Silence is no change.
    """
    reasons = [f"{finding}: {course}" for finding, course in courses(current) if course != "stable"]
    if prior is not None:
        before, now = label_report(prior), label_report(current)
        for finding in CHEXPERT[1:]:
            if {before[finding], now[finding]} == {Label.PRESENT, Label.ABSENT}:
                reasons.append(f"{finding}: {before[finding].name.lower()}, now {now[finding].name.lower()}")
    return Change(bool(reasons), tuple(dict.fromkeys(reasons)))


def sentence_courses(text: str, reading: Reading) -> list[tuple[str, Course]]:
    """(finding, course) pairs of one sentence that has been read."""
    if not reading.mentions:
        return []
    tokens = reading.tokens
    cues = _cues(tokens, reading.mentions)
    if not cues:
        return []
    found = []
    for mention in reading.mentions:
        course = _course(mention, cues, tokens)
        if course is not None and (mention.finding, course) not in found:
            found.append((mention.finding, course))
    return found


class _Cue(NamedTuple):
    start: int
    end: int
    course: Course | None  # None: denied, or something else that changes


def _cues(tokens: Sequence[str], mentions: Iterable[Mention]) -> list[_Cue]:
    """Words of change outside of the names of findings, from left to right."""
    tree, anchors = _tree()
    taken = {k for m in mentions for k in range(m.start, m.end)}
    cues, place = [], 0
    while place < len(tokens):
        end, course = _longest(tree, tokens, place)
        if end <= place:
            place += 1
            continue
        if course is not None and taken.isdisjoint(range(place, end)):
            cues.append(_Cue(place, end, _denied(course, tokens, place)))
        place = end
    return [cue for cue in cues if not _anchored(cue, tokens, anchors, taken)]


def _denied(course: Course, tokens: Sequence[str], place: int) -> Course | None:
    before = [
        word for word in tokens[max(0, place - 3) : place] if word not in ("have", "be", "significant", "interval")
    ]
    if before and before[-1] in _DENIALS:
        return None if course in load("change")["turned"] else course if course == "stable" else "stable"
    return course


def _anchored(cue: _Cue, tokens: Sequence[str], anchors: frozenset[str], taken: set[int]) -> bool:
    """Whether the word of change belongs to something that is no finding: "decreased lung volumes"."""
    near = range(max(0, cue.start - 3), min(len(tokens), cue.end + 3))
    return any(k not in taken and tokens[k] in anchors for k in near)


def _course(mention: Mention, cues: Sequence[_Cue], tokens: Sequence[str]) -> Course | None:
    """Course of a mention: that of the nearest word of change. A denied finding has one only if it is gone."""
    best, distance = None, _REACH + 1.0
    for cue in cues:
        between = tokens[cue.end : mention.start] if cue.end <= mention.start else tokens[mention.end : cue.start]
        cost = len(between) + 3 * sum(word in _JOINTS for word in between)
        if ";" in between or "but" in between:
            continue
        if cost < distance:
            best, distance = cue, cost
    if best is None or best.course is None:
        return None
    if mention.label is Label.ABSENT and best.course != "resolved":
        return None
    return best.course


def _longest(tree: dict[str, object], tokens: Sequence[str], place: int) -> tuple[int, Course | None]:
    node, end, course = tree, 0, None
    for k in range(place, len(tokens)):
        node = node.get(tokens[k])  # type: ignore[assignment]
        if node is None:
            break
        if "" in node:
            end, course = k + 1, node[""]
    return end, course  # type: ignore[return-value]


@cache
def _tree() -> tuple[dict[str, object], frozenset[str]]:
    """Phrases of change as a tree of folded words, and the words that keep one from a finding."""
    table, fold = load("change"), lexicon().fold
    tree: dict[str, object] = {}
    entries = [
        (phrase, course) for course, patterns in table["courses"].items() for p in patterns for phrase in expand(p)
    ]
    entries += [(phrase, None) for p in table["nothing"] for phrase in expand(p)]
    for phrase, course in entries:
        node = tree
        for word in fold.phrase(phrase):
            node = node.setdefault(word, {})  # type: ignore[assignment]
        node.setdefault("", course)
    return tree, frozenset(fold.phrase(table["anchors"].split()))


def sentence_change(text: str) -> list[tuple[str, Course]]:
    """(finding, course) pairs of one sentence or a few."""
    return [pair for s in sentences(text) for pair in sentence_courses(s.text, read_sentence(s.text))]
