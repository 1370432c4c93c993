"""A report as lines that can be changed one by one: what variants and errors are made of.

A line is one atom of one section. A draft is rendered the same way whether or not a line was changed, so that a
variant differs from its original by the edit and by nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from models.language.atoms import atoms
from models.language.attributes import Attributes, attributes, merged
from models.language.labeller import merge, read_report
from models.language.mentions import Reading, read_sentence, spoken
from models.language.sections import Sections
from models.language.vocabulary import load
from models.studies.schema import Label


class Line(NamedTuple):
    """One atom: the section it stands in, its text, and what it says."""

    section: str
    text: str
    reading: Reading

    def findings(self) -> frozenset[str]:
        """Classes it speaks of, denied ones too."""
        return frozenset(mention.finding for mention in self.reading.mentions)

    def asserts(self, finding: str) -> bool:
        """Whether it says that ``finding`` is there or may be."""
        return any(m.finding == finding and m.label is not Label.ABSENT for m in self.reading.mentions)


def line(section: str, text: str) -> Line:
    """A line of ``section``, read."""
    return Line(section, text, read_sentence(text))


@dataclass(frozen=True, slots=True)
class Draft:
    """The lines of a report in their order: findings, impression, addenda."""

    lines: tuple[Line, ...]

    def sections(self) -> Sections:
        """The draft as sections; one without a line is ``None``."""
        parts = {name: self.text(name) or None for name in ("findings", "impression", "addendum")}
        return Sections(**parts)

    def text(self, section: str) -> str:
        """One section as text."""
        return " ".join(line.text for line in self.lines if line.section == section)

    def said(self) -> dict[str, Label]:
        """What its words say of each class they speak of: no rule of the report, and no No Finding."""
        return spoken(line.reading for line in self.lines)

    def labels(self) -> dict[str, Label]:
        """The 14 labels of the report, by the labeller's rules."""
        return merge(line.reading for line in self.lines)

    def attributes(self) -> dict[str, Attributes]:
        """Side, degree and size of each finding that is not denied."""
        return merged(attributes(line.text, line.reading) for line in self.lines)

    def without(self, places: Iterable[int], instead: Line | None = None) -> Draft:
        """The draft without the lines at ``places``; ``instead`` stands where the first of them was."""
        gone = sorted(set(places))
        lines = [line for place, line in enumerate(self.lines) if place not in gone]
        if instead is not None and gone:
            lines.insert(gone[0], instead)
        return Draft(tuple(lines))

    def with_text(self, changed: dict[int, str]) -> Draft:
        """The draft with other texts at some places."""
        return Draft(tuple(line(old.section, changed[k]) if k in changed else old for k, old in enumerate(self.lines)))

    def insert(self, place: int, new: Line) -> Draft:
        """The draft with one line more."""
        return Draft((*self.lines[:place], new, *self.lines[place:]))

    def dependents(self, place: int) -> list[int]:
        """Lines after ``place`` that go on about it without a finding of their own: "This measures 8 mm"."""
        words = frozenset(load("wording")["dependent"].split())
        found = []
        for k in range(place + 1, len(self.lines)):
            after = self.lines[k]
            first = next((word for word in after.reading.tokens if word.isalpha()), "")
            if after.section != self.lines[place].section or after.reading.mentions or first not in words:
                break
            found.append(k)
        return found


def draft(report: str | Sections, split: bool = True) -> Draft:
    """The draft of a report; with ``split``, sentences of several findings as atoms."""
    lines = []
    for said in read_report(report):
        text = said.sentence.text
        lines += (line(said.section, atom) for atom in (atoms(text) if split else [text]))
    return Draft(tuple(lines))


def again(made: Draft) -> Draft:
    """``made`` as it is read once it has been written down: the check that every edit has to pass."""
    lines = [Line(said.section, said.sentence.text, said.reading) for said in read_report(made.sections())]
    return Draft(tuple(lines))
