"""What one sentence says of each finding.

    [(m.finding, m.label.name) for m in read_sentence("Heart size normal; small left effusion, no PTX.").mentions]
    # [('Cardiomegaly', 'ABSENT'), ('Pleural Effusion', 'PRESENT'), ('Pneumothorax', 'ABSENT')]

A finding is named ("effusion") or said of a subject ("the heart is enlarged"). Subjects are joined ("heart and
mediastinum are normal"), and a subject has at most one predicate, the nearest that grammar allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from models.language.lexicon import AFTER, BEFORE, Kind, Placed, Role, lexicon
from models.language.polarity import Scopes, Verdict
from models.studies.schema import Label


class Mention(NamedTuple):
    """One finding in one sentence.

    Attributes:
        finding: CheXpert class.
        label: PRESENT, ABSENT or UNCERTAIN.
        probable: whether an UNCERTAIN one is more likely than not.
        start, end: its words in ``Reading.tokens``, the end exclusive.
    """

    finding: str
    label: Label
    probable: bool
    start: int
    end: int


class Reading(NamedTuple):
    """One sentence as the labeller understands it.

    Attributes:
        tokens: its folded words.
        mentions: findings, from left to right.
        other: whether an abnormality without a class is asserted or left open.
        normal: whether it says that all is well.
    """

    tokens: list[str]
    mentions: list[Mention]
    other: bool
    normal: bool


_NORMAL, _OPEN = Verdict(Label.ABSENT), Verdict(Label.UNCERTAIN)
_STOPS = frozenset((",", ";", ":", "and", "with", "(", ")"))
_COPULA = frozenset(("be", "appear", "remain", "seem", "seems", "have"))
_NEAR, _FAR = 1, 9
"""Words between a predicate and its subject: without a verb, and at most."""
_JOINED = 4
"""Words between two subjects of one predicate, at most."""
_JOINING = frozenset((",", "and", "or", "/", "&", "the", "both", "also", "xxxx"))


def read_sentence(text: str) -> Reading:
    """Read one sentence. Never raises for a string; what is not understood is not mentioned."""
    words = lexicon()
    tokens = words.fold(text)
    if not words.foreign.isdisjoint(tokens):
        return Reading(tokens, [], False, False)
    found = words.scan(tokens)
    scopes = Scopes(tokens, found)
    subjects, predicates = found[Kind.SUBJECT], found[Kind.PREDICATE]
    called_normal = {
        at - 1
        for at, _, role in predicates
        if role.says == "normal" and at >= 2 and tokens[at - 1] in _COPULA and tokens[at] != "not"
    }
    mentions: list[Mention] = []
    other = False
    for start, end, role in found[Kind.TERM]:
        if (role.not_after or role.not_before or role.near) and not _holds(role, tokens, start, end):
            continue
        # "interstitial markings are normal" denies what it names
        verdict = _NORMAL if end in called_normal else scopes.of(start, end)
        for finding in role.findings:
            described = role.open and verdict.label is Label.PRESENT and finding == role.findings[0]
            mentions.append(Mention(finding, *(_OPEN if described else verdict), start, end))
        other = other or (not role.findings and verdict.label is not Label.ABSENT)
    if subjects and predicates:
        said, odd = _said(tokens, subjects, predicates, scopes)
        if said:
            mentions = sorted(mentions + said, key=lambda m: m.start)
        other = other or odd
    return Reading(tokens, mentions, other, bool(found[Kind.NORMAL]))


_ORDER = (Label.ABSENT, Label.UNCERTAIN, Label.PRESENT)


def spoken(readings: Iterable[Reading]) -> dict[str, Label]:
    """The strongest label of every class in ``readings``: present over uncertain over absent."""
    found: dict[str, Label] = {}
    for reading in readings:
        for mention in reading.mentions:
            known = found.get(mention.finding, Label.ABSENT)
            found[mention.finding] = max(known, mention.label, key=_ORDER.index)
    return found


def _holds(role: Role, tokens: Sequence[str], start: int, end: int) -> bool:
    """Whether the conditions of a term are met where it stands."""
    if role.not_after:
        for place in range(start - 1, max(start - 1 - BEFORE, -1), -1):
            if tokens[place] in _STOPS:
                break
            if tokens[place] in role.not_after:
                return False
    if role.not_before and not role.not_before.isdisjoint(tokens[end : end + AFTER]):
        return False
    return not role.near or not role.near.isdisjoint(tokens)


def _said(
    tokens: Sequence[str], subjects: list[Placed], predicates: list[Placed], scopes: Scopes
) -> tuple[list[Mention], bool]:
    """Mentions that predicates make of their subjects, and whether one is an abnormality without a class."""
    free = list(subjects)
    mentions: list[Mention] = []
    other = False
    last: tuple[int, list[Placed]] = (-1, [])
    for start, end, role in predicates:
        if last[1] and last[0] <= start and _JOINING.issuperset(tokens[last[0] : start]) and last[0] < start:
            governed = last[1]
        else:
            governed = _governed(tokens, free, start, end)
            free = [subject for subject in free if subject not in governed]
        last = (end, governed)
        if not governed or role.says == "same":
            continue
        for _, _, subject in governed:
            label, findings = _label(role, tokens, start, end, scopes, subject)
            mentions += (Mention(finding, *label, start, end) for finding in findings)
            other |= not findings and role.says == "abnormal" and label.label is not Label.ABSENT
    return mentions, other


def _label(
    role: Role, tokens: Sequence[str], start: int, end: int, scopes: Scopes, subject: Role
) -> tuple[Verdict, Iterable[str]]:
    if role.says == "normal":
        doubtful = "not" in tokens[max(0, start - 2) : start]
        return Verdict(Label.UNCERTAIN if doubtful else Label.ABSENT), subject.normal
    if role.says == "unknown":
        return Verdict(Label.UNCERTAIN), subject.findings
    return scopes.of(start, end), subject.findings


def _governed(tokens: Sequence[str], free: list[Placed], start: int, end: int) -> list[Placed]:
    """The subjects of the predicate at ``start`` to ``end``, of those that have none yet."""
    before = [subject for subject in free if subject[1] <= start]
    following = next((subject for subject in free if subject[0] >= end), None)
    ahead = (
        following is not None and following[0] - end <= _NEAR and not _STOPS.intersection(tokens[end : following[0]])
    )
    if before:
        between = tokens[before[-1][1] : start]
        linked = not _COPULA.isdisjoint(between) and len(between) <= _FAR
        if len(between) <= _NEAR or linked or (not ahead and len(between) <= _FAR and _light(between)):
            return _joined(tokens, before)
    if ahead and following is not None:
        return _joined_after(tokens, [subject for subject in free if subject[0] >= end])
    return []


_HEAVY = frozenset((";", ":", "-", "but", "with", "without", "there", "no"))
_DEGREE = frozenset(("mildly", "slightly", "moderately", "markedly", "severely", "mild", "moderate", "marked"))
_DEGREE |= {"overall", "again", "size", "grossly", ",", "xxxx", "the", "and"}


def _light(between: Sequence[str]) -> bool:
    """Whether words may stand between a subject and its predicate without a verb."""
    return _HEAVY.isdisjoint(between) and all(word in _DEGREE or not word.isalpha() for word in between)


def _joined(tokens: Sequence[str], before: list[Placed]) -> list[Placed]:
    """The last of ``before`` and those that are joined to it: "heart size, hila and mediastinum"."""
    found = [before[-1]]
    for subject in reversed(before[:-1]):
        between = tokens[subject[1] : found[-1][0]]
        if len(between) > _JOINED or not _JOINING.intersection(between) or _COPULA.intersection(between):
            break
        if _HEAVY.intersection(between):
            break
        found.append(subject)
    return found


def _joined_after(tokens: Sequence[str], after: list[Placed]) -> list[Placed]:
    """The first of ``after`` and those that are joined to it with nothing but a joint."""
    found = [after[0]]
    for subject in after[1:]:
        between = tokens[found[-1][1] : subject[0]]
        if not between or not _JOINING.issuperset(between):
            break
        found.append(subject)
    return found
