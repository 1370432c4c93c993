"""Reports with exactly one error: what error discrimination is trained and tested on.

    make_errors("FINDINGS: Small left effusion. IMPRESSION: Small left pleural effusion.", seed=3)[0]
    # Erroneous(category='severity', text='Large left pleural effusion.', ...)

Nine categories. Each error is one edit of one sentence (or one sentence more) and is taken only if the text, read
again, says everything else as before: no other finding, side, degree or size has changed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Literal, NamedTuple, get_args

from models.language import edits
from models.language.attributes import Attributes
from models.language.draft import Draft, Line, again, line
from models.language.labeller import NO_FINDING, PARENTS, read_report
from models.language.sections import Sections
from models.language.variants import Wordings, targets
from models.language.vocabulary import load
from models.randomness import stream_seed
from models.studies.schema import Label

Category = Literal[
    "severity",
    "location",
    "false_finding",
    "false_negation",
    "measurement",
    "opposite_sentence",
    "device_added",
    "device_renamed",
    "device_moved",
]
CATEGORIES: tuple[Category, ...] = get_args(Category)
PREFERRED: tuple[Category, ...] = ("severity", "location")
DEVICES = "Support Devices"


class Erroneous(NamedTuple):
    """A text with one error.

    Attributes:
        category: which of the nine.
        text: the section with the error.
        original: the section without it, written in the same way.
        section: ``impression``; ``findings`` where a report has no impression.
        finding: CheXpert class the error is about.
        before, after: the sentence that was changed; ``None`` where one was only added.
        rule: the wording or the table entry that was used.
    """

    category: Category
    text: str
    original: str
    section: str
    finding: str
    before: str | None
    after: str
    rule: str


class _Try(NamedTuple):
    """An edit to be checked."""

    place: int
    after: str
    added: bool
    finding: str
    rule: str
    labels: Mapping[str, Label]
    attributes: frozenset[str]  # classes whose side, degree or size changes


def make_errors(report: str | Sections, seed: int, count: int = 3, wordings: Wordings = "train") -> list[Erroneous]:
    """At most ``count`` different errors of one report; severity and location first, then the others by lot.

    The same seed, the same errors. A report that offers fewer gives fewer; an empty one none.

    Raises:
        ValueError: for a count below 1.
    """
    if count < 1:
        raise ValueError(f"errors: count {count}; at least 1 is allowed")
    rng = random.Random(stream_seed(seed, "errors"))
    rest = [category for category in CATEGORIES if category not in PREFERRED]
    rng.shuffle(rest)
    rest.sort(key=lambda category: category == "device_added")  # it fits every report: last, else it would be in all
    whole = _read(report)
    found: dict[str, Erroneous] = {}
    for _ in range(2):  # a second turn fills up with other errors of the same categories
        for category in (*PREFERRED, *rest):
            if len(found) >= count:
                return list(found.values())
            error = _one(whole, category, rng, wordings, avoid=found.keys())
            if error is not None:
                found[error.text] = error
    return list(found.values())


def make_error(
    report: str | Sections,
    category: Category,
    rng: random.Random,
    wordings: Wordings = "train",
    avoid: frozenset[str] = frozenset(),
) -> Erroneous | None:
    """One error of ``category``, or ``None`` where the report offers none whose text is not in ``avoid``.

    Raises:
        ValueError: for an unknown category.
    """
    if category not in CATEGORIES:
        raise ValueError(f"error category {category!r}: allowed are {', '.join(CATEGORIES)}")
    return _one(_read(report), category, rng, wordings, avoid)


def _read(report: str | Sections) -> Draft:
    return Draft(tuple(Line(s.section, s.sentence.text, s.reading) for s in read_report(report)))


def _one(
    whole: Draft, category: Category, rng: random.Random, wordings: Wordings, avoid: Collection[str]
) -> Erroneous | None:
    section = "impression" if whole.text("impression") else "findings"
    original = Draft(tuple(line for line in whole.lines if line.section == section))
    if not original.lines:
        return None
    for attempt in _MAKERS[category](original, whole, rng, wordings):
        if attempt.added:
            changed = original.insert(attempt.place, line(section, attempt.after))
        else:
            changed = original.with_text({attempt.place: attempt.after})
        text = changed.text(section)
        if text not in avoid and _holds(original, changed, attempt):
            before = None if attempt.added else original.lines[attempt.place].text
            return Erroneous(
                category, text, original.text(section), section, attempt.finding, before, attempt.after, attempt.rule
            )
    return None


def _holds(original: Draft, changed: Draft, attempt: _Try) -> bool:
    """Whether the changed text, read again, says what was meant and nothing else anew."""
    read = again(changed)
    if read.said() != {**original.said(), **attempt.labels}:
        return False
    before, after = original.attributes(), read.attributes()
    return all(_kept(name, before, after) for name in {*before, *after} - attempt.attributes)


def _kept(name: str, before: Mapping[str, Attributes], after: Mapping[str, Attributes]) -> bool:
    return before.get(name) == after.get(name)


def _shuffled(items: list[int], rng: random.Random) -> list[int]:
    items = list(items)
    rng.shuffle(items)
    return items


_Maker = Callable[[Draft, Draft, random.Random, Wordings], Iterator[_Try]]


def _about(original: Draft, rng: random.Random) -> Iterator[tuple[int, str, frozenset[str]]]:
    """Lines that assert one lesion, by lot: (place, class, all classes that name it)."""
    for place in _shuffled(list(range(len(original.lines))), rng):
        one = original.lines[place]
        for finding in sorted({m.finding for m in one.reading.mentions if m.label is Label.PRESENT}):
            named = edits.cluster(one, finding)
            if named:
                yield place, finding, named


def _severity(original: Draft, whole: Draft, rng: random.Random, wordings: Wordings) -> Iterator[_Try]:
    for place, finding, named in _about(original, rng):
        one, up = original.lines[place], rng.random() < 0.5
        text = edits.degree(one, finding, up) if edits.degree_line(one) else None
        if text is not None:
            yield _Try(place, text, False, finding, "degree turned round", {}, named)


def _location(original: Draft, whole: Draft, rng: random.Random, wordings: Wordings) -> Iterator[_Try]:
    for place, finding, named in _about(original, rng):
        one = original.lines[place]
        ways = [("left and right exchanged", edits.mirror(one)), ("height exchanged", edits.elsewhere(one))]
        rng.shuffle(ways)
        yield from (_Try(place, text, False, finding, rule, {}, named) for rule, text in ways if text is not None)


def _false_finding(original: Draft, whole: Draft, rng: random.Random, wordings: Wordings) -> Iterator[_Try]:
    said = whole.said()
    table = load("wording")["asserted"]
    names = [name for name in table if said.get(name, Label.ABSENT) is Label.ABSENT and name not in original.said()]
    names = [name for name in names if PARENTS.get(name) not in said]
    rng.shuffle(names)
    names.sort(key=lambda name: name not in said)  # what the findings deny comes first: it contradicts them
    calm = [k for k, one in enumerate(original.lines) if one.reading.normal and not one.reading.mentions]
    for name in names:
        text = rng.choice(table[name][wordings])
        place = calm[0] if calm else rng.randint(0, len(original.lines))
        yield _Try(place, text, not calm, name, text, {name: Label.PRESENT}, frozenset({name}))


def _false_negation(original: Draft, whole: Draft, rng: random.Random, wordings: Wordings) -> Iterator[_Try]:
    for finding in _by_lot(targets(original), rng):
        places = [k for k, one in enumerate(original.lines) if one.asserts(finding)]
        if len(places) != 1 or original.lines[places[0]].findings() != {finding}:
            continue
        rule, text = _denial(finding, rng, wordings)
        yield _Try(places[0], text, False, finding, rule, {finding: Label.ABSENT}, frozenset({finding}))


def _measurement(original: Draft, whole: Draft, rng: random.Random, wordings: Wordings) -> Iterator[_Try]:
    for place, finding, named in _about(original, rng):
        factor = rng.choice((0.4, 0.5, 2.0, 2.5))
        text = edits.measurement(original.lines[place].text, factor)
        if text is not None:
            yield _Try(place, text, False, finding, f"lengths times {factor}", {}, named)


def _opposite(original: Draft, whole: Draft, rng: random.Random, wordings: Wordings) -> Iterator[_Try]:
    said = original.said()
    for place in _shuffled(list(range(len(original.lines))), rng):
        for finding in sorted(original.lines[place].findings()):
            if said[finding] is Label.PRESENT:
                rule, text = _denial(finding, rng, wordings)
                yield _Try(place + 1, text, True, finding, rule, {}, frozenset())
            elif said[finding] is Label.ABSENT and finding in load("wording")["asserted"]:
                text = rng.choice(load("wording")["asserted"][finding][wordings])
                yield _Try(place + 1, text, True, finding, text, {finding: Label.PRESENT}, frozenset({finding}))


def _device_added(original: Draft, whole: Draft, rng: random.Random, wordings: Wordings) -> Iterator[_Try]:
    known = " ".join(one.text.lower() for one in whole.lines)
    added = [text for text in load("wording")["added"][wordings] if " ".join(text.lower().split()[:2]) not in known]
    for text in _by_lot(added, rng):
        place = rng.randint(0, len(original.lines))
        yield _Try(place, text, True, DEVICES, text, {DEVICES: Label.PRESENT}, frozenset({DEVICES}))


def _device_edit(way: Callable[[str, random.Random], str | None], rule: str) -> _Maker:
    def maker(original: Draft, whole: Draft, rng: random.Random, wordings: Wordings) -> Iterator[_Try]:
        for place in _shuffled([k for k, one in enumerate(original.lines) if one.asserts(DEVICES)], rng):
            text = way(original.lines[place].text, rng)
            if text is not None:
                yield _Try(place, text, False, DEVICES, rule, {}, frozenset({DEVICES}))

    return maker


def _denial(finding: str, rng: random.Random, wordings: Wordings) -> tuple[str, str]:
    table = load("wording")
    rule, term = rng.choice(table["denials"][wordings]), rng.choice(table["names"][finding])
    return rule, rule.format(term=term, Term=term[0].upper() + term[1:])


def _by_lot(items: list[str], rng: random.Random) -> list[str]:
    items = [item for item in items if item != NO_FINDING]
    rng.shuffle(items)
    return items


_MAKERS: dict[Category, _Maker] = {
    "severity": _severity,
    "location": _location,
    "false_finding": _false_finding,
    "false_negation": _false_negation,
    "measurement": _measurement,
    "opposite_sentence": _opposite,
    "device_added": _device_added,
    "device_renamed": _device_edit(edits.renamed_device, "device renamed"),
    "device_moved": _device_edit(edits.moved_device, "device moved"),
}
