"""Addresses, hospitals, rooms: where somebody lives or was treated."""

from __future__ import annotations

import re
from collections.abc import Iterator

from client.ingest.patterns import Found, bounded, find, rule
from client.ingest.words import CLINICAL, FUNCTION

_STREET = (
    "street|avenue|road|boulevard|lane|drive|court|highway|parkway|terrace|square|crescent|close|place|plaza|circle"
    "|way|row|mews|st|ave|rd|blvd|ln|dr|ct|hwy|pkwy|sq|pl"
)
_CITY = r"[A-Z][A-Za-z]+(?:\s[A-Z][A-Za-z]+)?"

_RULES = [
    rule(
        "ADDRESS",
        rf"(?<![\w.])\d{{1,5}}[A-Za-z]?,?\s+(?:[A-Z0-9][\w'.]{{0,30}}\s+){{1,3}}(?i:{_STREET})\b\.?",
        r"(?:,?\s+(?i:apt|suite|unit|flat)\.?\s*#?\w+)?",
        rf"(?:,\s+{_CITY}(?:,?\s+[A-Z]{{2}}\b)?(?:\s+\d{{5}}(?:-\d{{4}})?)?)?",
        case=True,
    ),
    rule("ADDRESS", rf"\b{_CITY},\s*[A-Z]{{2}}\.?\s+\d{{5}}(?:-\d{{4}})?(?!\d)", case=True),
    rule("ADDRESS", r"\bp\.?\s?o\.?\s?box\s*\d+"),
    rule(  # a British postcode, the town before it included
        "ADDRESS",
        r"(?:\b[A-Z][a-z]+,?\s)?\b[A-Z]{1,2}\d[A-Z\d]?\s\d(?!ST\b|ND\b|RD\b|TH\b)[ABD-HJLNP-UW-Z]{2}\b",
        case=True,
    ),
    rule(
        "ADDRESS",
        r"(?<![\w-])[a-z\u00e4\u00f6\u00fc][\w-]{0,40}(?:stra(?:\u00dfe|sse)|str\.|gasse|platz|allee)\s+\d{1,4}[a-z]?\b",
    ),
    rule("ADDRESS", r"\b\d{1,4},?\s+(?:rue|calle|piazza)\s+(?:(?:de|du|des|la|le|les|del|di|della)\s+){0,2}\w+"),
    rule(
        "ADDRESS",
        r"\b(?:resid(?:es|ing|ence)|lives?|living|home address|address)\s*(?:at|:|is)\s*(?P<x>[^.;\n]{3,80})",
    ),
    rule(
        "PLACE",
        r"\b(?:room|rm|bed|bay|ward|suite|cubicle|floor)\s*[#:]?\s*(?P<x>[a-z]?-?\d{1,4}(?:-?[a-z])?)(?![\w.]\w)(?!\w)",
    ),
    rule("PLACE", r"\bloc(?:ation)?\s*:\s*(?P<x>(?:\w+[ \t]){0,2}\w*-?\d[\w-]*)"),
]

_FACILITY = (
    r"hospital|medical\s+(?:center|centre|clinic|group)|health\s?(?:care|system|center|centre)?|clinic|infirmary"
    r"|hospice|sanatorium|nhs(?:\s+foundation)?\s+trust|klinikum|krankenhaus|klinik|h\u00f4pital|university"
    r"|universit\u00e4t|institute|imaging\s+(?:center|centre|associates)|radiology\s+(?:associates|group|partners)"
    r"|nursing\s+home|urgent\s+care|memorial|rehabilitation\s+center"
)
_NAMED = re.compile(
    bounded(
        rf"\b(?P<x>(?:[A-Z][\w'\u2019.-]{{0,40}}[ \t]+(?:(?:of|the|and|AND|&)[ \t]+)?){{1,6}}"
        rf"(?i:{_FACILITY}))\b"
    )
)
_OF = re.compile(bounded(rf"\b(?:{_FACILITY})(?:\s+(?:{_FACILITY}))?\s+of\s+(?=[A-Z])"), re.IGNORECASE)
_LOCAL = re.compile(
    bounded(
        r"\b(?i:klinikum|krankenhaus|klinik|h\u00f4pital|ospedale|universit\u00e4tsklinikum)[ \t]+"
        r"(?:[A-Z][\w\u2019'-]{1,40}[ \t]?){1,3}"
    )
)
_WORD = re.compile(r"([^\W\d_][\w'\u2019.-]{0,40})[ \t]?")
_GENERIC = frozenset(("outside", "other", "another", "same", "our", "local", "referring", "prior", "community"))


def find_places(text: str) -> Iterator[Found]:
    """Addresses and places in ``text``."""
    yield from find(_RULES, text)
    for match in _LOCAL.finditer(text):
        yield *match.span(), "PLACE"
    for match in _OF.finditer(text):
        end = _proper_end(text, match.end())
        if end is not None:
            yield match.start(), end, "PLACE"
    for match in _NAMED.finditer(text):
        start = _proper_start(match)
        if start is not None:
            yield start, match.end("x"), "PLACE"


def _proper_start(match: re.Match[str]) -> int | None:
    """Where the proper name of a facility begins; ``None`` for "The Hospital", "Outside Hospital", "CHEST
    CLINIC".

    Leading words that no name begins with are cut off. In capitals a clinical word is not the beginning
    either.
    """
    ordinary = CLINICAL if match["x"].isupper() else FUNCTION | _GENERIC
    for word in _WORD.finditer(match["x"]):
        plain = word[1].lower().rstrip(".")
        if re.fullmatch(_FACILITY + "|medical|health|university", plain):
            return None
        if plain not in ordinary and plain not in _GENERIC:
            return match.start("x") + word.start()
    return None


def _proper_end(text: str, position: int) -> int | None:
    """End of the capitalised words from ``position`` on; ``None`` where there are none.

    In capitals, clinical words end them.
    """
    end = None
    for _ in range(4):
        word = _WORD.match(text, position)
        if word is None or not word[1][0].isupper():
            break
        if word[1].lower() in (CLINICAL if word[1].isupper() else FUNCTION):
            break
        end, position = word.end(1), word.end()
    return end
