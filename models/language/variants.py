"""Variants of a report that differ from it in one fact: the hard negatives of training and the pairs of CXR-Align.

    made = build_variants("FINDINGS: Small left effusion. No PTX.", seed=1)
    [(v.kind, v.sections.findings) for v in made]
    # [('omitted', 'No PTX.'), ('negated', 'No evidence of pleural effusion. No PTX.'), ...]

A variant is taken only if, written down and read again, the report says of every other finding exactly what it
said, with the same side, degree and size, and of the target what was asked for. What cannot be changed without
changing something else is refused with a reason. Every variant says how it was made. No text leaves the site: a
variant is as private as its report.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple, get_args

from models.language import edits
from models.language.attributes import Attributes
from models.language.draft import Draft, again, draft, line
from models.language.labeller import NO_FINDING, PARENTS
from models.language.sections import Sections
from models.language.vocabulary import load
from models.randomness import stream_seed
from models.studies.schema import CHEXPERT, Label

Kind = Literal["omitted", "negated", "entity", "laterality", "severity", "measurement", "device"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Wordings = Literal["train", "test"]


class Change(NamedTuple):
    """One line before and after; ``None`` where it was added or left out."""

    section: str
    before: str | None
    after: str | None


class Variant(NamedTuple):
    """A report with one fact changed, and how it came about.

    Attributes:
        kind: which fact.
        finding: the target, present in the original.
        sections: the variant.
        original: the report written in the same way.
        rule: the wording or the table entry that was used.
        changes: every line that differs.
    """

    kind: Kind
    finding: str
    sections: Sections
    original: Sections
    rule: str
    changes: tuple[Change, ...]


class Refused(NamedTuple):
    """Why a variant was not made."""

    kind: Kind
    finding: str
    reason: str


class _Made(NamedTuple):
    draft: Draft
    rule: str
    labels: Mapping[str, Label | None]  # what changes: class to its new label, None for no longer spoken of
    attributes: Mapping[str, Attributes | None]  # the same for side, degree and size


class _No(Exception):
    """The reason why an edit cannot be made."""


def targets(original: Draft) -> list[str]:
    """Findings that are present with certainty, in CheXpert order."""
    said = original.said()
    return [name for name in CHEXPERT if said.get(name) is Label.PRESENT]


def build_variants(
    report: str | Sections | Draft,
    seed: int,
    kinds: Iterable[Kind] = KINDS,
    wordings: Wordings = "train",
    split: bool = True,
) -> list[Variant]:
    """One variant of each kind, each for a target drawn among those that allow it. The same seed, the same variants.

    Args:
        report: a report with or without headings, its sections, or a draft.
        seed: of the drawing; give each report its own (``stream_seed(seed, "variants", study)``).
        kinds: which to make.
        wordings: which of the two sets of denials and assertions to draw from.
        split: whether sentences of several findings are made atoms first.
    """
    original = report if isinstance(report, Draft) else draft(report, split)
    made = []
    for kind in kinds:
        rng = random.Random(stream_seed(seed, "variant", kind))
        names = targets(original)
        rng.shuffle(names)
        outcomes = (make_variant(original, kind, name, rng, wordings) for name in names)
        made += [next((v for v in outcomes if isinstance(v, Variant)), None)]
    return [variant for variant in made if variant is not None]


def make_variant(
    original: Draft, kind: Kind, finding: str, rng: random.Random, wordings: Wordings = "train"
) -> Variant | Refused:
    """The variant of one kind for one target, or why there is none.

    Raises:
        ValueError: for an unknown kind, or a finding that is no CheXpert class.
    """
    if kind not in KINDS or finding not in CHEXPERT or finding == NO_FINDING:
        raise ValueError(
            f"variant {kind!r} of {finding!r}: kinds are {', '.join(KINDS)}; a finding is a CheXpert class"
        )
    if original.said().get(finding) is not Label.PRESENT:
        return Refused(kind, finding, "not_present")
    try:
        made = _MAKERS[kind](original, finding, rng, wordings)
    except _No as no:
        return Refused(kind, finding, str(no))
    reason = _fault(original, made, kind)
    if reason:
        return Refused(kind, finding, reason)
    return Variant(kind, finding, made.draft.sections(), original.sections(), made.rule, _changes(original, made.draft))


def _fault(original: Draft, made: _Made, kind: Kind) -> str | None:
    """What is wrong with a variant once it is read again, or nothing."""
    read = again(made.draft)
    labels, sides = dict(original.said()), dict(original.attributes())
    for known, change in ((labels, made.labels), (sides, made.attributes)):
        for name, value in change.items():
            if value is None:
                known.pop(name, None)
            else:
                known[name] = value
    said = read.said()
    if said != labels:
        kept = {name: label for name, label in labels.items() if name not in made.labels}
        changed = {name: label for name, label in said.items() if name not in made.labels}
        return "another_finding_changed" if kept != changed else "finding_not_changed"
    if _ruled(original, made.labels) != _ruled(read, made.labels):
        return "another_finding_changed"  # by a rule of the report: heart failure speaks of the heart
    if any(read.labels()[name] is not Label.UNMENTIONED for name, value in made.labels.items() if value is None):
        return "finding_not_changed"
    if read.attributes() != sides:
        return "another_attribute_changed"
    if kind not in ("omitted", "negated", "entity") and original.sections() == made.draft.sections():
        return "nothing_changed"
    return None


def _ruled(made: Draft, changed: Iterable[str]) -> dict[str, Label]:
    """Labels of the whole report, but for what was to change and for No Finding, which follows from it."""
    return {name: label for name, label in made.labels().items() if name not in changed and name != NO_FINDING}


def _changes(before: Draft, after: Draft) -> tuple[Change, ...]:
    """Lines that differ, by a walk over both from the top; an edit touches few."""
    a, b = list(before.lines), list(after.lines)
    found = []
    while a or b:
        if a and b and (a[0].section, a[0].text) == (b[0].section, b[0].text):
            a.pop(0), b.pop(0)
        elif len(a) == len(b):
            found.append(Change(a[0].section, a.pop(0).text, b.pop(0).text))
        elif len(a) > len(b) and not (b and (b[0].section, b[0].text) not in {(x.section, x.text) for x in a}):
            found.append(Change(a[0].section, a.pop(0).text, None))
        else:
            found.append(Change(b[0].section, None, b.pop(0).text))
    return tuple(found)


def _left_out(original: Draft, finding: str) -> tuple[Draft, int]:
    """The draft without what speaks of a finding, and the place of the first line that did.

    A line that speaks of something else too loses only the words about the finding, where that can be done.
    """
    shorter = {
        k: text
        for k, old in enumerate(original.lines)
        if finding in old.findings() and (text := edits.cut(old, finding)) is not None
    }
    gone = {k for k, old in enumerate(original.lines) if finding in old.findings()} - shorter.keys()
    gone |= {after for k in gone for after in original.dependents(k)}
    if len(gone) == len(original.lines):
        raise _No("nothing_left")
    first = min({*gone, *shorter})
    return original.with_text(shorter).without(gone), first - sum(k < first for k in gone)


def _omitted(original: Draft, finding: str, rng: random.Random, wordings: Wordings) -> _Made:
    changed, _ = _left_out(original, finding)
    return _Made(changed, "what speaks of it left out", {finding: None}, {finding: None})


def _negated(original: Draft, finding: str, rng: random.Random, wordings: Wordings) -> _Made:
    table = load("wording")
    rule, term = rng.choice(table["denials"][wordings]), rng.choice(table["names"][finding])
    section = next(old.section for old in original.lines if finding in old.findings())
    denial = line(section, rule.format(term=term, Term=term[0].upper() + term[1:]))
    try:
        changed, first = _left_out(original, finding)
    except _No:  # the whole report was about it: the denial is all that is left
        return _Made(Draft((denial,)), rule, {finding: Label.ABSENT}, {finding: None})
    return _Made(changed.insert(first, denial), rule, {finding: Label.ABSENT}, {finding: None})


def _entity(original: Draft, finding: str, rng: random.Random, wordings: Wordings) -> _Made:
    said, table = original.said(), load("wording")["asserted"]
    kin = {finding, PARENTS.get(finding), *(child for child, parent in PARENTS.items() if parent == finding)}
    kin |= {PARENTS[name] for name in said if name in PARENTS}
    free = [name for name in table if name not in said and name not in kin]
    if not free:
        raise _No("no_other_finding")
    instead = rng.choice(free)
    sentence = rng.choice(table[instead][wordings])
    section = next(old.section for old in original.lines if finding in old.findings())
    new = line(section, sentence)
    labels: dict[str, Label | None] = {finding: None, instead: Label.PRESENT}
    sides = {finding: None, instead: Draft((new,)).attributes()[instead]}
    try:
        changed, first = _left_out(original, finding)
    except _No:
        return _Made(Draft((new,)), sentence, labels, sides)
    changed = changed.insert(first, new)
    # "No acute disease" would deny the new finding
    calm = [k for k, old in enumerate(changed.lines) if old.reading.normal and not old.reading.mentions]
    return _Made(changed.without(calm), sentence, labels, sides)


def _asserting(original: Draft, finding: str) -> list[int]:
    return [k for k, line in enumerate(original.lines) if line.asserts(finding)]


def _together(original: Draft, places: Iterable[int], finding: str) -> frozenset[str]:
    """Classes that change with the target because the lines speak of one lesion."""
    found: frozenset[str] = frozenset()
    for k in places:
        one = edits.cluster(original.lines[k], finding)
        if not one:
            raise _No("shared_sentence")
        found |= one
    return found


def _laterality(original: Draft, finding: str, rng: random.Random, wordings: Wordings) -> _Made:
    if finding in load("attributes")["sideless"]:
        raise _No("finding_without_side")
    known = original.attributes()
    places = [
        k
        for k in _asserting(original, finding)
        if re.search(r"\b(?:left|right|[lr]t|[lr][lu]lf?)\b", original.lines[k].text, re.IGNORECASE)
    ]
    if not places:
        raise _No("no_side")
    moved = _together(original, places, finding)
    follow = {k for place in places for k in original.dependents(place)}
    texts = {}
    for k in [*places, *follow]:
        text = edits.mirror(original.lines[k])
        if text is None and k in places:
            raise _No("one_sided")
        if text is not None:
            texts[k] = text
    flip = {"left": "right", "right": "left"}
    wanted = {name: known[name]._replace(sides=frozenset(flip[s] for s in known[name].sides)) for name in moved}
    return _Made(original.with_text(texts), "left and right exchanged", {}, wanted)


def _severity(original: Draft, finding: str, rng: random.Random, wordings: Wordings) -> _Made:
    known = original.attributes()
    if not known[finding].degrees:
        raise _No("no_degree")
    places = [k for k in _asserting(original, finding) if edits.degree(original.lines[k], finding, True)]
    moved = _together(original, places, finding)
    if not all(edits.degree_line(original.lines[k]) for k in places):
        raise _No("degree_of_something_else")
    up = rng.random() < 0.5
    texts = {k: edits.degree(original.lines[k], finding, up) or "" for k in places}
    changed = original.with_text(texts)
    new = changed.attributes()
    for name in moved:
        kept = known[name].degrees & new[name].degrees if name in new else frozenset()
        if kept:
            raise _No("degrees_contradict")
    wanted = {name: known[name]._replace(degrees=new[name].degrees) for name in moved if name in new}
    return _Made(changed, "degree raised" if up else "degree lowered", {}, wanted)


def _measurement(original: Draft, finding: str, rng: random.Random, wordings: Wordings) -> _Made:
    known = original.attributes()
    if not known[finding].sizes:
        raise _No("no_measurement")
    about = _asserting(original, finding)
    factor = rng.choice((0.4, 0.5, 2.0, 2.5))
    texts = {k: text for k in about if (text := edits.measurement(original.lines[k].text, factor))}
    moved = _together(original, texts, finding)
    changed = original.with_text(texts)
    new = changed.attributes()
    wanted = {name: known[name]._replace(sizes=new[name].sizes) for name in moved}
    if any(known[name].sizes & new[name].sizes for name in moved):
        raise _No("sizes_contradict")
    return _Made(changed, f"lengths times {factor}", {}, wanted)


def _device(original: Draft, finding: str, rng: random.Random, wordings: Wordings) -> _Made:
    if finding != "Support Devices":
        raise _No("no_device")
    ways: list[Callable[[str, random.Random], str | None]] = [edits.renamed_device, edits.moved_device]
    rng.shuffle(ways)
    for way in ways:
        for k in _asserting(original, finding):
            text = way(original.lines[k].text, rng)
            if text is not None:
                rule = "device renamed" if way is edits.renamed_device else "device moved"
                changed = original.with_text({k: text})
                return _Made(changed, rule, {}, {finding: changed.attributes().get(finding)})
    raise _No("device_unknown")


_MAKERS: dict[Kind, Callable[[Draft, str, random.Random, Wordings], _Made]] = {
    "omitted": _omitted,
    "negated": _negated,
    "entity": _entity,
    "laterality": _laterality,
    "severity": _severity,
    "measurement": _measurement,
    "device": _device,
}
