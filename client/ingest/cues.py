"""Finds names that are not in the header, by what stands around them.

A title ("Dr."), a role ("Attending:", "his son"), a verb of reporting ("dictated by", "notified") before
the name; a degree (", MD") or what only people do ("was notified") behind it. In text of mixed case a
capitalised word within a sentence that is no word of radiology English is taken for a name as well.

**Not found**: in text written in capitals, a name with no cue; in mixed case, one at the start of a
sentence with no cue behind it ("Anna feels better").
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from client.ingest.names import APOSTROPHES, Span, fold, mostly_upper, sentence_start
from client.ingest.words import FUNCTION, PARTICLES, RADIOLOGY, TITLES


def _any(words: str) -> str:
    """The words as alternatives; ``_`` stands for blanks."""
    return "(?:" + "|".join(words.replace("_", r"[ \t]{1,9}").split()) + ")"


_GAP = r"[ \t]{0,9}"
_WRAP = r"[ \t]{0,9}(?:\r?\n[ \t]{0,9}(?=[^\W\d_]))?"
"""Blanks, or the end of a wrapped line."""
_ROLES = """attending resident fellow radiologist physician provider technologist technician tech clinician
consultant surgeon nurse author transcriptionist transcriber interpreter reader pcp doctor reporter worker
coordinator caregiver navigator secretary manager director chief supervisor hospitalist intern operator
referrer gp"""
_FAMILY = """guardian mother father wife husband spouse partner son daughter brother sister niece nephew
aunt uncle grandson granddaughter grandmother grandfather friend neighbor neighbour caretaker fianc\u00e9e?
boyfriend girlfriend"""
_WROTE = """dictated signed read interpreted transcribed reviewed verified approved reported finali[sz]ed
authenticated performed ordered requested referred typed supervised entered released resulted discussed
attested edited acknowledged confirmed accepted obtained given made seen addendum report prepared"""
_TOLD = """called paged conveyed reported relayed faxed telephoned communicated given phoned discussed sent
transmitted"""

_TITLE = re.compile(
    r"\b(?:[Dd][Rr]s?|DRS?|[Dd]octors?|DOCTOR|[Pp]rof|PROF|[Pp]rofessor|Mr|Mrs|Ms|MR(?=\.)|MRS|MS(?=\.)"
    rf"|[Mm]iss(?=\s[A-Z])|Nurse|NURSE|Herr|Frau|Mme|Sra?)\b\.?{_WRAP}"
)
_STAFF = re.compile(rf"\b(?:{_any(_ROLES)}|patient(?:'s)?[ \t]name){_GAP}[:=]{_GAP}", re.IGNORECASE)
_BY = re.compile(
    rf"\b(?:{_any(_WROTE)}(?:\s{{1,9}}(?:and\s{{1,9}}\w{{1,30}}|electronically))?\s{{1,9}}by"
    rf"|{_any('discussed d/w communicated reviewed spoke spoken conferred shared')}"
    rf"(?:\s{{1,9}}\w{{1,30}}){{0,3}}?"
    rf"(?:\s{{1,9}}with|(?<=d/w))"
    rf"|{_any(_TOLD)}(?:\s{{1,9}}\w{{1,30}}){{0,3}}?\s{{1,9}}to"
    rf"|{_any('notified informed notify inform contacted alerted telephoned paged advised cc c/o attn')})\b"
    rf"{_GAP}[:.\-]{{0,3}}{_WRAP}",
    re.IGNORECASE,
)
_LABEL = re.compile(
    rf"\b(?:{_any('patient name pt signed contact verified dictated reported next_of_kin')}|{_any(_FAMILY)})"
    rf"{_GAP}[:=]{_GAP}",
    re.IGNORECASE,
)
_ROLE = re.compile(
    rf"\b(?:{_any(_ROLES)}|{_any(_FAMILY)}|RN|NP|PA-C|LPN|CRNA)(?i:s|'s)?,?[ \t]{{1,9}}\(?(?=[A-Z])",
    re.IGNORECASE,
)
_GENERAL_BY = re.compile(r"\b[Bb]y[ \t]{1,9}(?=[A-Z][a-z])")
_BEHIND = re.compile(
    r"[ \t]{1,9}(?:(?:was|were|has[ \t]been|have[ \t]been)[ \t]{1,9}(?:\w{1,20}[ \t]{1,9})?"
    r"(?:notified|informed|called|paged|contacted|advised|told|reached|alerted|aware|telephoned)"
    r"|states|stated|reports|denies|complains|verbali[sz]e[sd]|acknowledge[sd]|agree[sd]|read[ \t]back"
    r"|understood|repeated)\b"
)
_DEGREE = re.compile(
    r",?[ \t]{1,9}(?:M\.?D|Ph\.?D|D\.O|R\.N|RN|N\.P|PA-?C|CRNA|MBBS|MBChB|FRC[RPS]|FACR|RT\(R\))\b\.?"
    r"(?![\w:])"
)
_INITIALS = re.compile(r"(?:^|[ \t]{2}|\d[ \t])([A-Z]{2,3})[ \t]?[/:][ \t]?([A-Za-z]{2,3})[ \t]*$", re.MULTILINE)
"""Dictation and transcription initials at the end of a line: ``JS/mt``."""
_SIGNATURE = re.compile(r"(?:^|[.\s])[-\u2013\u2014~][ \t]?((?:[A-Z][\w'.-]{1,30}[ \t]?){2,3})\s{0,9}\Z")

_TOKEN = re.compile(rf"[^\W\d_](?:[^\W\d_]|[{APOSTROPHES}](?=[^\W\d_])|-(?=[^\W\d_]))*")
_NEXT = re.compile(r"[ \t]{1,9}|,[ \t]{1,9}(?=[A-Z])|\n(?=[A-Z][a-z]+\b(?!:))")
_AND = re.compile(r"[ \t]{0,9}(?:,[ \t]{0,9}and\b|,|&|\band\b|\bor\b)[ \t]{0,9}(?:drs?\.?[ \t]{0,9})?", re.IGNORECASE)
_PIECE = rf"(?<![^\W_])(?:[^\W\d_]\.|[^\W\d_](?:[^\W\d_]|[{APOSTROPHES}-](?=[^\W\d_])){{1,30}})"
_NAME_BEFORE = re.compile(rf"(?:{_PIECE},?[ \t]{{0,9}}){{1,4}}$")
_CAPITALISED = re.compile(
    rf"(?<![\w/{APOSTROPHES}.-])[A-Z\u00c0-\u00de](?:[^\W\d_A-Z]{{2,}}|[a-z]{{1,2}}[A-Z][a-z]+)(?![\w/-])"
)


def find_cued(text: str) -> Iterator[Span]:
    """Places of names in ``text``."""
    shouted = mostly_upper(text)
    for cue, title in ((_TITLE, True), (_STAFF, True), (_BY, False), (_LABEL, False), (_ROLE, False)):
        for match in cue.finditer(text):
            sure = title and (cue is _TITLE or text[match.end() : match.end() + 1].isupper())
            yield from _names_from(text, match.end(), sure, shouted)
    for behind in (_DEGREE, _BEHIND):
        for match in behind.finditer(text):
            yield from _name_before(text, match.start(), shouted or behind is _BEHIND)
    for match in _INITIALS.finditer(text):
        if not {match[1].lower(), match[2].lower()} & RADIOLOGY:
            yield match.span(1)
            yield match.span(2)
    signature = _SIGNATURE.search(text, max(0, len(text) - 120))
    if signature and not set(signature[1].lower().split()) & RADIOLOGY:
        yield signature.span(1)
    if not shouted:
        for match in _GENERAL_BY.finditer(text):
            yield from _names_from(text, match.end(), False, shouted)
        yield from _unknown(text)


def _unknown(text: str) -> Iterator[Span]:
    """Capitalised words within a sentence that are no words of radiology English."""
    for match in _CAPITALISED.finditer(text):
        if fold(match.group())[0] not in RADIOLOGY and not sentence_start(text, match.start()):
            yield match.span()


def _names_from(text: str, position: int, sure: bool, shouted: bool) -> Iterator[Span]:
    """The name that begins at ``position``, and those joined to it by "and".

    ``sure`` says that a name must follow, as behind "Dr.": even "dr. long" is one.
    """
    while True:
        span = _one_name(text, position, sure, shouted)
        if span is None:
            return
        yield span
        joined = _AND.match(text, span[1])
        if joined is None:
            return
        position, sure = joined.end(), False


def _one_name(text: str, position: int, sure: bool, shouted: bool) -> Span | None:
    start = end = -1
    initials = 0
    words: list[str] = []
    while len(words) < 5:
        match = _TOKEN.match(text, position)
        if match is None:
            break
        word, after = match.group(), text[match.end() : match.end() + 2]
        initial = len(word) == 1 and word.isupper() and (after[:1] == "." or (sure and after[1:].isupper()))
        if not initial and not _is_name(word, sure and len(words) == initials, shouted, bool(words)):
            break
        start = match.start() if start < 0 else start
        end = match.end() + (initial and after[:1] == ".")
        initials += initial
        words.append(word)
        if initial and _TOKEN.match(text, end):
            position = end  # "B.J. Smith"
            continue
        gap = _NEXT.match(text, end)
        if gap is None or ("," in gap.group() and (len(words) > 1 or not _follows_comma(text, gap.end(), sure))):
            break
        position = gap.end()
    named = (sure and words) or any(word.lower() not in PARTICLES for word in words)
    return (start, end) if named else None


def _follows_comma(text: str, position: int, sure: bool) -> bool:
    """Whether the word behind "Family," can be a given name."""
    match = _TOKEN.match(text, position)
    return match is not None and (sure or fold(match.group())[0] not in RADIOLOGY)


def _is_name(word: str, sure: bool, shouted: bool, begun: bool) -> bool:
    plain = fold(word)[0]
    if plain in TITLES and len(plain) > 1:
        return False
    if sure:
        return plain not in FUNCTION
    if plain in PARTICLES:
        return True
    if len(plain) == 1:
        return word.isupper() and plain not in ("a", "i")
    if shouted or word.isupper():
        return word[0].isupper() and plain not in RADIOLOGY
    return word[0].isupper() and plain not in (FUNCTION if begun else RADIOLOGY)


def _name_before(text: str, end: int, strict: bool) -> Iterator[Span]:
    """Up to four capitalised words right before ``end``; ``strict`` lets no word of radiology English
    through.
    """
    window = max(0, end - 80)
    match = _NAME_BEFORE.search(text[window:end])
    if match is None:
        return
    start = -1
    for token in reversed(list(_TOKEN.finditer(text, window + match.start(), end))):
        word = token.group()
        plain = fold(word)[0]
        ordinary = RADIOLOGY if strict else FUNCTION
        if not word[0].isupper() or (plain in ordinary and len(plain) > 1):
            break
        start = token.start()
    if start >= 0:
        yield start, end
