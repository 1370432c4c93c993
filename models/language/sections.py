"""Sections of a chest X-ray report as hospitals write it.

    split_report("HX: cough. COMP: none.\\nFINDINGS\\nLungs clear.\\n\\nIMP: Normal chest.").impression
    # "Normal chest."

A heading is an alias in a place: at the start of a line with a colon, a dash, brackets or nothing behind
it; alone on its line; or inside a line with a colon. Without a colon the letter case and the next word
decide, so that "Findings are unchanged" stays prose. Nothing is lost: what belongs to no section comes back
as ``rest``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

REST, ADDENDUM = "rest", "addendum"


@dataclass(frozen=True, slots=True)
class Sections:
    """The parts of one report, white space collapsed; ``None`` where a part is absent or empty.

    Attributes:
        findings: the descriptive part. A report without any heading is findings; so is one heading for
            findings and impression together, and prose that stands before the first heading of a report
            without findings.
        addendum: text of addenda, in their order.
        rest: titles, recommendations, signatures and whatever else stands under no section.
    """

    findings: str | None = None
    impression: str | None = None
    indication: str | None = None
    comparison: str | None = None
    technique: str | None = None
    addendum: str | None = None
    rest: str | None = None


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_EXAM = "(?:stud(?:y|ies)|films?|exams?|examinations?|radiographs?|imaging)"
_WORDS = {
    "findings": ("findings?", "(?:radiographic|imaging|chest) findings", "observations?"),
    "impression": (
        "impressions?",
        "(?:final|radiographic|radiologic(?:al)?|overall) impressions?",
        "impressions? (?:and|&) recommendations?",
        "conclusions?",
        "opinion",
        "interpretation",
        "(?:final|radiologic(?:al)?) diagnosis",
    ),
    "indication": (
        "indications?",
        "(?:clinical|exam) indications?",
        "indications? for (?:exam(?:ination)?|study|procedure)",
        "history",
        "(?:clinical|brief|patient|medical|pertinent|provided|relevant|past medical) history",
        "history of present illness",
        "clinical (?:information|info|data|details|statement|question|impression|context|notes?)",
        "reason for (?:exam(?:ination)?|study|procedure|visit|test|request)",
        "reason for (?:the|this) (?:exam(?:ination)?|study|procedure)",
        "presenting complaint",
    ),
    "comparison": (
        "comparisons?",
        f"comparison {_EXAM}",
        f"(?:prior|previous) {_EXAM}",
        "compared (?:to|with)",
    ),
    "technique": ("technique", "(?:imaging|exam) technique", "projections?", "technical factors"),
    REST: (
        "recommendations?",
        "examination",
        "exam(?:ination)? (?:description|type|date)",
        "type of exam(?:ination)?",
        "procedure comments?",
        "(?:referring|ordering|attending) (?:physician|provider|radiologist)",
        "wet read",
        "critical results?",
        "communication",
        "notification",
        "(?:preliminary|final) report",
    ),
}
_SHORT = {
    "findings": ("find", "fdgs?", "fndgs?", "report", "results?", "description", "body of report"),
    "impression": ("impr?", "concl", "summary", "assessment", "diagnosis"),
    "indication": (
        *("ind", "indic", "hx", "clin", "clinical", "clin(?:ical)? (?:hx|ind|info)"),
        *("c/o", "rfe", "reason", "symptoms?", "complaints?"),
    ),
    "comparison": ("comps?", "compared?", "priors?", "correlation"),
    "technique": ("tech", "views?"),
    REST: (
        *(
            "exam",
            "study",
            "procedure",
            "recs?",
            "notes?",
            "attending",
            "resident",
            "radiologist",
            "physician",
        ),
        *("signature", "cc", "name", "patient", "patient name", "patient id", "mrn", "dob", "date"),
        *("date of exam", "date of study", "accession", "accession number", "location", "department"),
    ),
}
"""Words that are headings only with a colon, a dash or a line of their own."""

_NEVER_PROSE = _words("find imp impr concl ind indic hx comp comps tech")

_SIGN_OFF = (
    r"(?:this report (?:was|has been) )?(?:electronically|digitally) (?:signed|approved)|"
    r"(?:dictated|signed|interpreted|transcribed|reviewed|approved|verified|finalized|reported|read)"
    r"(?: and (?:signed|approved|reviewed|verified))? by|end of (?:report|addendum|impression)|"
    r"i have personally (?:reviewed|viewed|interpreted)|report (?:signed|approved|verified)"
)
_ADDENDUM = r"(?:late )?adden(?:dum|da)(?: report| begins| starts)?(?: ?#?\d{1,2})?"
_ORIGINAL = r"(?:original|initial|main) report"

_NOT_AFTER = _words(
    """
    are is was were be been being have has had may might could can cannot would should will do does did of
    in on at to for from with without by and or as that this these those which who suggest suggests
    suggesting suggestive consistent compatible represent represents representing indicate indicates
    indicating likely discussed reported described noted above below remain remains made seen communicated
    called worrisome concerning but not
    """
)
"""A word that, right after a would-be heading without a colon, shows that it is prose."""
_NOT_BEFORE = _words(
    """
    the these this those following above below other additional see no any our my their his her its of and
    with to or in on for a an previous prior abnormal normal clinical pertinent positive negative per main
    """
)
_TITLE = re.compile(
    r"\b(?:chest|xr|cxr|dx|cr|x-?rays?|radiographs?|radiography|radiology|exam(?:ination)?|report|pa|ap|lateral|views?|"
    r"portable|department|hospital|name|mrn|dob|date|accession|patient)\b",
    re.IGNORECASE,
)
_PROSE = re.compile(
    r"\b(?:is|are|was|were|no|not|clear|normal|demonstrates?|shows?|seen|without|evidence|unremarkable|stable|"
    r"unchanged|effusions?|pneumothorax|opacit(?:y|ies)|consolidations?|acute|enlarged|lungs?|heart|has|have|"
    r"negative|o?edema|congestion|cardiomegaly|atelectasis|resolving|worsening|improving)\b",
    re.IGNORECASE,
)
_LINE_END = re.compile("\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_INVISIBLE = re.compile("[\u200b-\u200d\u2060\ufeff\0]")
_RULE = re.compile(r"^[ \t\-_=*~#.]{3,}$", re.MULTILINE)
_JOIN = r"\s*(?:/|&|\+|,|\band\b)\s*"


def _alias(*words: str) -> str:
    """Alternatives with the most words first: else "comparison" would hide "comparison study"."""
    ordered = sorted(words, key=lambda alias: -alias.count(" "))
    return "(?:" + "|".join(ordered).replace(" ", r"[ \t]+") + ")"


_ANY = _alias(*(alias for table in (_WORDS, _SHORT) for words in table.values() for alias in words))
_HEADING = re.compile(
    rf"(?<![\w/'\u2019-])(?:(?P<signoff>{_alias(_SIGN_OFF)})|(?P<addendum>{_alias(_ADDENDUM)})|"
    rf"(?P<original>{_alias(_ORIGINAL)})|"
    rf"(?P<name>{_ANY}(?:{_JOIN}{_ANY})*))(?![\w/'\u2019-])",
    re.IGNORECASE,
)
_FULL = {section: re.compile(_alias(*words), re.IGNORECASE) for section, words in _WORDS.items()}
_ABBREVIATED = {section: re.compile(_alias(*words), re.IGNORECASE) for section, words in _SHORT.items()}
_LEAD = re.compile(r"[ \t>*#_|\[(<•·\-\u2013\u2014]*(?:\d{1,2}[.)][ \t]*)?[*_\[(<]*")
_CLOSE = re.compile(
    r"(?P<note>[ \t]*\([^()\n]{0,40}\))?[ \t]*(?:"
    r"(?P<colon>[\])>*_]*[ \t]*:[:\-\u2013\u2014]*[*_\])>]*)|(?P<bracket>[\])>]|\*\*|__)|"
    r"(?P<dash>(?:-{1,2}|[\u2013\u2014])>?(?=\s))|(?P<line>[ \t]*(?=\n|\Z)))"
)
_CAPITAL_HEADING = re.compile(r"\b(?:F(?i:indings)|I(?i:mpression|ndication)|C(?i:omparison)|T(?i:echnique))[ \t]*:")
_NEXT = re.compile(r"[ \t]+([A-Za-z0-9]\S*)")


_WINDOW = 80
"""Characters looked at before a candidate. Bounded, so that a hostile text costs linear time."""


class _Mark(NamedTuple):
    start: int  # of the heading, its decoration included
    end: int  # first character of its text
    section: str
    bare: bool = False  # nothing but its words makes it a heading; never so for findings and impression


class _Style(NamedTuple):
    shouted: bool  # written in capitals throughout
    lower: bool  # its headings, if any, are in lower case


def normalise_lines(text: str) -> str:
    """``text`` with every kind of line end as a line feed, without invisible characters and ruled lines."""
    text = _INVISIBLE.sub("", _LINE_END.sub("\n", text)).replace("\xa0", " ").replace("\u202f", " ")
    return _RULE.sub("", text)


def split_report(text: str) -> Sections:
    """The sections of one report, in any style this file's docstring names. Never raises for a string."""
    text = normalise_lines(text)
    marks = list(_marks(text))
    parts: dict[str, list[str]] = {field.name: [] for field in fields(Sections)}
    named = {mark.section for mark in marks}
    head = text[: marks[0].start] if marks else text
    titles, prose = _preamble(head, alone=not marks)
    parts[REST].append(titles)
    parts[REST if "findings" in named else "findings"].append(prose)
    in_addendum = False
    seen: set[str] = set()
    for mark, following in zip(marks, [*marks[1:], None]):
        section, body = mark.section, text[mark.end : following.start if following else len(text)]
        if section == ADDENDUM:
            in_addendum = True
        elif section == REST or (in_addendum and section not in seen):
            in_addendum = False  # an addendum that stands on top ends where the report proper begins
        if in_addendum:
            quoted = "" if section == ADDENDUM else text[mark.start : mark.end]
            parts[ADDENDUM].append(quoted + body)
        else:
            seen.add(section)
            parts[section].append(_kept_heading(text, mark) + body)
    return Sections(**{name: _joined(pieces) for name, pieces in parts.items()})


def _marks(text: str) -> Iterator[_Mark]:
    """Headings in their order. A candidate inside the decoration of the one before is skipped.

    A bare one right behind another heading is the first word of its text: "IMP: Comparison made to ..."
    """
    style = _Style(shouted=_mostly_upper(text), lower=_CAPITAL_HEADING.search(text) is None)
    last = 0
    for match in _HEADING.finditer(text):
        if match.start() < last:
            continue
        mark = _mark(text, match, style)
        if mark is not None and not (mark.bare and last and not text[last : match.start()].strip()):
            yield mark._replace(start=max(mark.start, last))
            last = mark.end


def _mark(text: str, match: re.Match[str], style: _Style) -> _Mark | None:
    window = max(0, match.start() - _WINDOW)
    line_start = text.rfind("\n", window, match.start()) + 1 or window
    before = text[line_start : match.start()]
    at_start = (line_start == 0 or text[line_start - 1] == "\n") and _LEAD.fullmatch(before) is not None
    start = line_start if at_start else match.start()
    if match["signoff"]:
        return _Mark(start, match.end(), REST) if at_start or _after_sentence(text, start) else None
    if match["addendum"]:
        return _addendum(text, match, start, at_start)
    close = _CLOSE.match(text, match.end())
    if match["original"]:
        return _Mark(start, close.end(), REST) if at_start and close else None
    section, strong = _section_of(match["name"])
    opened = re.search(r"[\[(<*_]+$", before)
    if close is not None and (opened or not close["bracket"]):  # "(no findings)" closes a bracket, not a heading
        if opened and section == REST and not strong:
            return None  # "[NAME]", "[DATE]": what a scrubber puts in the place of an identifier
        if opened and (close["bracket"] or close["colon"]) and not at_start:
            return _Mark(start - len(opened.group()), close.end(), section)
        # "line" away from the start of a line is a sentence that ends in the word: "... for comparison."
        if at_start and (strong or close["line"] is None or not match["name"].islower()):
            if close["line"] is not None and not _heading_alone(text, match, line_start, style):
                return None
            return _Mark(start, close.end(), section)
        if close["colon"] and _inline_allowed(text, match, strong, style.lower):
            return _Mark(start, close.end(), section)
    if strong and _bare_allowed(text, match, at_start, style.shouted, section):
        return _Mark(start, match.end(), section, bare=section not in ("findings", "impression"))
    return None


def _section_of(name: str) -> tuple[str, bool]:
    """Section of an alias or of several joined ones, and whether it is a full word.

    Joined headings belong to the first, except that findings win over impression.
    """
    for kind, strong in ((_FULL, True), (_ABBREVIATED, False)):
        for section, pattern in kind.items():
            if pattern.fullmatch(name):
                return section, strong
    found = [_section_of(part) for part in re.split(_JOIN, name, flags=re.IGNORECASE)]
    sections = [section for section, _ in found]
    return ("findings" if "findings" in sections else sections[0]), all(strong for _, strong in found)


def _addendum(text: str, match: re.Match[str], start: int, at_start: bool) -> _Mark | None:
    """An addendum may carry a date or a name before its colon; these stay part of its text."""
    if not (at_start or _after_sentence(text, start)):
        return None
    close = _CLOSE.match(text, match.end())
    return _Mark(start, close.end() if close else match.end(), ADDENDUM)


def _heading_alone(text: str, match: re.Match[str], line_start: int, style: _Style) -> bool:
    """Whether a word alone on its line is a heading and not the last word of a wrapped sentence."""
    if match["name"][0].isupper() or style.lower:
        return True
    return line_start == 0 or text[max(0, line_start - _WINDOW) : line_start].rstrip(" \t").endswith("\n\n")


def _inline_allowed(text: str, match: re.Match[str], strong: bool, lower: bool) -> bool:
    name = match["name"]
    sentence_end = _after_sentence(text, match.start())
    if sentence_end:
        return strong or name[0].isupper() or name in _NEVER_PROSE
    if not (name[0].isupper() or (lower and strong)) or not (strong or name.isupper()):
        return False
    previous = re.search(r"([\w'-]+)[^\w]*$", text[max(0, match.start() - 40) : match.start()])
    return previous is None or previous.group(1).lower() not in _NOT_BEFORE


def _bare_allowed(text: str, match: re.Match[str], at_start: bool, shouted: bool, section: str) -> bool:
    """Whether a full word without any sign behind it is a heading: ``IMPRESSION No acute disease``."""
    name = match["name"]
    follows = _NEXT.match(text, match.end())
    if section == REST or follows is None or re.sub(r"\W+$", "", follows.group(1)).lower() in _NOT_AFTER:
        return False
    if at_start:
        return name.isupper() or (name[0].isupper() and not follows.group(1)[0].islower())
    if not (name.isupper() and _after_sentence(text, match.start())):
        return False
    return not shouted or name in ("IMPRESSION", "FINDINGS")


def _after_sentence(text: str, position: int) -> bool:
    """Whether ``position`` begins a sentence, or follows a gap that a form would leave."""
    before = text[max(0, position - _WINDOW) : position]
    stripped = before.rstrip()
    return not stripped or stripped[-1] in ".;:!?)]" or before.endswith(("  ", "\t", "\n", "|"))


def _mostly_upper(text: str) -> bool:
    letters = [c for c in text if c.isalpha()]
    return sum(c.isupper() for c in letters) > 0.8 * max(len(letters), 1)


def _kept_heading(text: str, mark: _Mark) -> str:
    """What ``rest`` keeps of a heading, so that "Electronically signed by" is not lost; sections drop
    theirs.
    """
    return text[mark.start : mark.end] if mark.section == REST else ""


def _preamble(head: str, alone: bool) -> tuple[str, str]:
    """(title lines, prose) of the text before the first heading; ``alone`` if there is none.

    Without any heading a line that ends in a full stop is no title: "Right chest tube in place."
    """
    titles, prose = [], []
    for line in head.split("\n"):
        is_title = len(line.split()) <= 12 and _TITLE.search(line) and not _PROSE.search(line)
        is_title = is_title and not (alone and line.rstrip().endswith("."))
        (titles if is_title and not prose else prose).append(line)
    return "\n".join(titles), "\n".join(prose)


def _joined(pieces: list[str]) -> str | None:
    # A word broken at its hyphen keeps the hyphen: which of them belong to the word nobody knows.
    clean = (" ".join(re.sub(r"(?<=[^\W_]-)\n[ \t]*(?=\w)", "", piece).split()) for piece in pieces)
    kept = [piece for piece in clean if re.search(r"\w", piece)]
    return " ".join(kept) or None
