"""Takes identifiers out of report text: each is replaced by its kind, as in ``[NAME]`` or ``[DATE]``.

    Scrubber(Known.of(header)).scrub("Mr Smith, seen 3/4/20: 3.5 cm mass.").text
    # "Mr [NAME], seen [DATE]: 3.5 cm mass."

Three sources: what the header says about this patient, staff and site (wherever it stands in the text);
names behind a cue such as "Dr." or "dictated by"; and shapes (dates, numbers, contacts, addresses). Written
by hand because no maintained, permissively licensed library fits: the one that is widely used finds names
only with a downloaded language model, fetches a list from the network when it meets an e-mail address, and
misses dates such as "2 Jan 20", times and pagers.

**Not promised**: see :mod:`client.ingest.names` and :mod:`client.ingest.cues` for what is not found.
Scrubbed text is for training behind the site's walls, not for publication.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from client.ingest.codes import Reason
from client.ingest.cues import find_cued
from client.ingest.header import Header
from client.ingest.names import HeaderNames
from client.ingest.patterns import Found, find_patterns
from client.ingest.places import find_places
from client.ingest.refusal import Refusal
from client.ingest.words import RADIOLOGY
from models.language.sections import Sections, split_report

KINDS = ("NAME", "DATE", "TIME", "AGE", "PHONE", "ID", "EMAIL", "URL", "ADDRESS", "PLACE")

_NAME_FIELDS = (
    *(
        "patient_name",
        "other_patient_names",
        "patient_birth_name",
        "patient_mother_birth_name",
        "responsible_person",
    ),
    *("referring_physician_name", "performing_physician_name", "name_of_physicians_reading_study"),
    *("physicians_of_record", "requesting_physician", "operators_name"),
)
_ID_FIELDS = (
    *(
        "patient_id",
        "other_patient_ids",
        "accession_number",
        "study_id",
        "study_instance_uid",
        "series_instance_uid",
    ),
    *("sop_instance_uid", "patient_telephone_numbers"),
)
_PHRASE_FIELDS = (
    *("patient_address", "institution_name", "institution_address", "institutional_department_name"),
    "station_name",
)
_MOST_PASSES = 10
_TOKEN = re.compile(r"\[(?:" + "|".join(KINDS) + r")\]")


@dataclass(frozen=True, repr=False)
class Known:
    """What is known of one study that must not stand in its report.

    ``damaged`` says that a name in the header could not be read, so that it cannot be looked for.
    """

    names: tuple[str, ...] = ()
    identifiers: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    damaged: bool = False

    @classmethod
    def of(cls, *headers: Header) -> Known:
        """From all headers of a study."""

        def values(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(sorted({getattr(h, n) for h in headers for n in names} - {""}))

        harmed = any(name in h.damaged for h in headers for name in (*_NAME_FIELDS, *_ID_FIELDS))
        return cls(values(_NAME_FIELDS), values(_ID_FIELDS), values(_PHRASE_FIELDS), harmed)


@dataclass(frozen=True)
class Scrubbed:
    """``counts`` says how many of each kind were replaced."""

    text: str
    counts: Counter[str] = field(default_factory=Counter)


class Scrubber:
    """Scrubs the reports of one study.

    Raises:
        Refusal: BAD_HEADER when a name in the header could not be read.
    """

    def __init__(self, known: Known) -> None:
        if known.damaged:
            raise Refusal(Reason.BAD_HEADER, "names")
        self._names = HeaderNames(known.names)
        self._identifiers = [_identifier(value) for value in _split(known.identifiers)]
        self._phrases = [phrase for value in known.phrases for phrase in _phrases(value)]

    def scrub(self, text: str) -> Scrubbed:
        """``text`` without identifiers. Scrubbing twice changes nothing more.

        A name may come to stand at its cue only once what stood between is gone, so passes follow until one
        finds nothing.
        """
        counts: Counter[str] = Counter()
        for _ in range(_MOST_PASSES):
            once = self._pass(text)
            if not once.counts:
                break
            text, counts = once.text, counts + once.counts
        return Scrubbed(text, counts)

    def _pass(self, text: str) -> Scrubbed:
        held = bytearray(len(text))
        for match in _TOKEN.finditer(text):
            held[match.start() : match.end()] = b"\1" * len(match.group())
        found = (span for span in self._find(text) if not any(held[span[0] : span[1]]))
        pieces: list[str] = []
        counts: Counter[str] = Counter()
        position = 0
        for start, end, kind in _merged(text, found):
            pieces += [text[position:start], f"[{kind}]"]
            counts[kind] += 1
            position = end
        return Scrubbed("".join([*pieces, text[position:]]), counts)

    def _find(self, text: str) -> Iterator[Found]:
        for pattern in self._identifiers:
            if pattern is not None:
                yield from ((*match.span(), "ID") for match in pattern.finditer(text))
        for pattern in self._phrases:
            yield from ((*match.span(), "PLACE") for match in pattern.finditer(text))
        yield from ((start, end, "NAME") for start, end in self._names.find(text))
        yield from ((start, end, "NAME") for start, end in find_cued(text))
        yield from find_patterns(text)
        yield from find_places(text)


@functools.lru_cache(maxsize=256)
def _scrubber(known: Known) -> Scrubber:
    return Scrubber(known)


def scrub(text: str, known: Known | None = None) -> Scrubbed:
    """Scrub one text; see :class:`Scrubber`."""
    return _scrubber(known or Known()).scrub(text)


def clean_report(text: str, known: Known) -> Sections:
    """The sections of a report, scrubbed as a whole before it is taken apart: a cue and its name stay
    together.
    """
    return split_report(scrub(text, known).text)


def _merged(text: str, found: Iterable[Found]) -> Iterator[Found]:
    """Overlapping finds as one, of the kind of the longest; also finds of one kind with a space or comma
    between.
    """
    start, end, longest, kind = -1, -1, -1, ""
    for span in sorted(_whole_numbers(text, found)):
        alike = span[2] == kind and re.fullmatch(r"[ ,]{0,2}", text[end : span[0]])
        if start >= 0 and span[0] >= end and not alike:
            yield start, end, kind
            start = -1
        if start < 0:
            start, end, longest = span[0], span[1], -1
        size = span[1] - span[0]
        if size > longest or (size == longest and KINDS.index(span[2]) < KINDS.index(kind)):
            longest, kind = size, span[2]
        end = max(end, span[1])
    if start >= 0:
        yield start, end, kind


def _whole_numbers(text: str, found: Iterable[Found]) -> Iterator[Found]:
    """Spans widened so that none cuts a run of digits: half an identifier is an identifier."""
    for start, end, kind in found:
        while start > 0 and text[start].isdigit() and text[start - 1].isdigit():
            start -= 1
        while end < len(text) and text[end].isdigit() and text[end - 1].isdigit():
            end += 1
        if end > start:
            yield start, end, kind


def _split(values: Iterable[str]) -> Iterator[str]:
    for value in values:
        yield from (part.strip() for part in value.split("\\"))


def _identifier(value: str) -> re.Pattern[str] | None:
    """The value with any blanks, dashes and dots between its characters; leading zeros may be missing.

    Values too short to be told from a measurement, and plain words, are left to the cues ("MRN 12").
    """
    plain = re.sub(r"[\W_]", "", value)
    plain = plain.lstrip("0") or plain
    if len(plain) < 4 or plain.lower() in RADIOLOGY:
        return None
    letters = r"[\s./_-]?".join(re.escape(c) for c in plain)
    return re.compile(rf"(?<![^\W_])0*{letters}(?![^\W_])", re.IGNORECASE)


def _phrases(value: str) -> Iterator[re.Pattern[str]]:
    """The value, and its components, as phrases with any blanks; a single word of plain English is left
    out.
    """
    parts = {value, *re.split(r"[\\^=\r\n]", value)}
    for part in sorted(parts, key=len, reverse=True):
        words = re.findall(r"[^\W_]+", part)
        if len("".join(words)) < 4 or (len(words) < 3 and all(w.lower() in RADIOLOGY for w in words)):
            continue
        yield re.compile(r"(?<![^\W_])" + r"[\W_]{1,3}".join(map(re.escape, words)) + r"(?![^\W_])", re.IGNORECASE)
