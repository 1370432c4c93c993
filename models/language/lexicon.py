"""The labeller's word lists as one tree of words, so that a sentence is read once.

Every phrase of ``findings.yaml`` and ``cues.yaml`` is a path in the tree; at its end stand its roles. Reading
takes the longest phrase at each place, so that "pericardial effusion" hides "effusion" and "cannot exclude"
hides "not".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Any

from models.config import ConfigError
from models.language.tokens import Folding, abbreviations
from models.language.vocabulary import expand, load
from models.studies.schema import CHEXPERT

BEFORE, AFTER = 5, 4
"""Words before and after a name in which a condition is looked for."""


class Kind(IntEnum):
    """What a phrase does in a sentence."""

    TERM = 0  # names a finding
    SUBJECT = 1  # is called normal or abnormal
    PREDICATE = 2  # calls its subject normal or abnormal
    NORMAL = 3  # says that all is well
    DENY_BEFORE = 4  # denies what follows
    DENY_AFTER = 5  # denies what went before
    DOUBT_BEFORE = 6  # leaves open what follows
    DOUBT_AFTER = 7  # leaves open what went before
    END = 8  # ends the reach of any cue
    END_DENIAL = 9  # ends the reach of a denial


@dataclass(frozen=True, slots=True)
class Role:
    """One role of one phrase.

    Attributes:
        kind: what it does.
        findings: classes that a TERM names, or that an abnormal SUBJECT asserts; a TERM without any is an
            abnormality that has no class.
        normal: classes that a normal SUBJECT denies.
        says: of a PREDICATE: normal, abnormal, unknown or same.
        soft: of a cue of doubt: a denial before it wins.
        probable: of a cue of doubt: more likely than not.
        closing: of a cue that looks back: counts only at the end of its part of the sentence.
        not_after, not_before, near: conditions of a TERM, as folded words.
        open: of a TERM: describes rather than names, so that asserting it leaves the finding open.
    """

    kind: Kind
    findings: tuple[str, ...] = ()
    normal: tuple[str, ...] = ()
    says: str = ""
    soft: bool = False
    probable: bool = False
    closing: bool = False
    not_after: frozenset[str] = frozenset()
    not_before: frozenset[str] = frozenset()
    near: frozenset[str] = frozenset()
    open: bool = False


Placed = tuple[int, int, Role]
"""First word of a phrase, the word after its last, and one role of it."""

_KINDS = tuple(Kind)
Tree = dict[str, Any]
_LEAF = ""


class Lexicon:
    """The tree of all phrases, and the folding of words that goes with it."""

    def __init__(self) -> None:
        entries = list(_entries())
        words = {word for phrase, _ in entries for word in phrase}
        words |= {word for _, role in entries if role for word in role.not_after | role.not_before | role.near}
        words |= {word for long in abbreviations().values() for word in long}
        self.fold = Folding(words)
        self._tree: Tree = {}
        for phrase, role in entries:
            self._add(self.fold.phrase(phrase), role)
        self.foreign = frozenset(load("spelling")["foreign"].split())
        self.openings = frozenset(self.fold.phrase(load("cues")["opening"]))

    def scan(self, tokens: Sequence[str]) -> list[list[Placed]]:
        """Every phrase in ``tokens`` (folded words), under each of its kinds.

        From left to right, the longest at each place, none inside another.
        """
        found: list[list[Placed]] = [[] for _ in _KINDS]
        tree, place, size = self._tree, 0, len(tokens)
        while place < size:
            node = tree.get(tokens[place])
            place += 1
            if node is None:
                continue
            end, roles, at = 0, (), place
            while True:
                if _LEAF in node:
                    end, roles = at, node[_LEAF]
                if at >= size:
                    break
                node = node.get(tokens[at])
                if node is None:
                    break
                at += 1
            if end:
                for role in roles:
                    found[role.kind].append((place - 1, end, role))
                place = end
        return found

    def _add(self, phrase: tuple[str, ...], role: Role | None) -> None:
        node = self._tree
        for word in phrase:
            node = node.setdefault(word, {})
        roles = node.setdefault(_LEAF, ())
        if role is not None:
            folded = _folded(role, self.fold)
            if folded not in roles:
                node[_LEAF] = (*roles, folded)


@cache
def lexicon() -> Lexicon:
    """The shipped lexicon, built once."""
    return Lexicon()


def _folded(role: Role, fold: Folding) -> Role:
    if not (role.not_after or role.not_before or role.near):
        return role
    return Role(
        role.kind,
        role.findings,
        not_after=frozenset(fold.phrase(role.not_after)),
        not_before=frozenset(fold.phrase(role.not_before)),
        near=frozenset(fold.phrase(role.near)),
        open=role.open,
    )


def _entries() -> Iterator[tuple[tuple[str, ...], Role | None]]:
    findings, cues = load("findings"), load("cues")
    for name, items in findings["findings"].items():
        if name not in CHEXPERT:
            raise ConfigError(f"findings.yaml: {name!r} is no CheXpert class; allowed: {', '.join(CHEXPERT)}")
        for item in items:
            yield from _terms(item, (name,))
    for item in findings["other"]:
        yield from _terms(item, ())
    for pattern in findings["nothing"]:
        yield from ((phrase, None) for phrase in expand(pattern))
    for pattern in findings["normal"]:
        for phrase in expand(pattern):
            yield phrase, Role(Kind.NORMAL)
            if phrase[0] in ("no", "negative"):
                yield phrase, Role(Kind.DENY_BEFORE)  # "no acute disease or effusion"
    for group in findings["subjects"]:
        role = Role(Kind.SUBJECT, tuple(group["abnormal"]), normal=tuple(group["normal"]))
        yield from ((phrase, role) for pattern in group["phrases"] for phrase in expand(pattern))
    for says, patterns in findings["predicates"].items():
        yield from ((phrase, Role(Kind.PREDICATE, says=says)) for pattern in patterns for phrase in expand(pattern))
    yield from _cues(cues)


def _cues(cues: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Role | None]]:
    probable = {phrase for pattern in cues["probable"] for phrase in expand(pattern)}
    for kind, group, key in (
        (Kind.DENY_BEFORE, "negation", "before"),
        (Kind.DENY_AFTER, "negation", "after"),
        (Kind.DENY_AFTER, "negation", "closing"),
        (Kind.DOUBT_BEFORE, "uncertainty", "before"),
        (Kind.DOUBT_BEFORE, "uncertainty", "evidence"),
        (Kind.DOUBT_AFTER, "uncertainty", "after"),
        (Kind.DOUBT_AFTER, "uncertainty", "closing"),
        (Kind.END, "ends", "both"),
        (Kind.END_DENIAL, "ends", "negation"),
    ):
        doubt = group == "uncertainty"
        for pattern in cues[group][key]:
            for phrase in expand(pattern):
                yield (
                    phrase,
                    Role(
                        kind,
                        soft=key == "evidence",
                        probable=doubt and phrase in probable,
                        closing=key == "closing",
                    ),
                )
    for pattern in cues["nothing"]:
        yield from ((phrase, None) for phrase in expand(pattern))


def _terms(item: str | dict[str, Any], classes: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Role]]:
    if isinstance(item, str):
        item = {"phrase": item}
    unknown = item.keys() - {"phrase", "not_after", "not_before", "near", "also", "open"}
    if unknown or "phrase" not in item:
        raise ConfigError(f"findings.yaml: {item!r}: keys are phrase, not_after, not_before, near, also, open")
    patterns = [item["phrase"]] if isinstance(item["phrase"], str) else item["phrase"]
    role = Role(
        Kind.TERM,
        (*classes, *item.get("also", ())),
        not_after=frozenset(item.get("not_after", ())),
        not_before=frozenset(item.get("not_before", ())),
        near=frozenset(item.get("near", ())),
        open=item.get("open", False),
    )
    yield from ((phrase, role) for pattern in patterns for phrase in expand(pattern))
