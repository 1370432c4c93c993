"""Shapes of identifiers in a report: links, dates, times, ages, telephone numbers, identifying numbers.

A rule marks its group ``x`` where it has one, else all of its match. What looks like a measurement, a level
of the spine, a count of views, a fraction or a list number must stay: "3.5 cm", "T4", "2-view", "1/2",
"L1-L2", "786.2".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

Found = tuple[int, int, str]
"""Start, end, kind."""

Check = Callable[[re.Match[str]], bool]
Rule = tuple[str, re.Pattern[str], Check | None]

UNIT = (
    r"(?:x|cm|mm|m|ml|cc|l|mg|mcg|g|kg|lbs?|hu|mhz|kv|kvp|mas|msv|mmhg|cmh2o|bpm|fr|french|%|degrees?"
    r"|percent)"
)
_YEAR = r"(?:19|20)\d{2}"
_MONTH_NAMES = (
    "january|february|march|april|june|july|august|september|october|november|december"
    "|januar|februar|m\u00e4rz|mai|juni|juli|oktober|dezember"
    "|janvier|f\u00e9vrier|mars|avril|juin|juillet|ao\u00fbt|septembre|octobre|novembre|d\u00e9cembre"
    "|enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre|noviembre|diciembre"
    "|gennaio|febbraio|aprile|maggio|giugno|luglio|settembre|ottobre|dicembre|januari|februari|maart|augustus"
)
_MONTH = rf"(?:{_MONTH_NAMES}|jan|feb|mar|apr|jun|jul|aug|sept?|oct|okt|nov|dec|dez)\b\.?"
"""Any month but May, which is mostly a verb: it has rules of its own."""
_DAY = r"(?:3[01]|[12]\d|0?[1-9])(?:st|nd|rd|th)?"
_SHORT_YEAR = rf"(?:{_YEAR}|['\u2019]\d\d|\d\d)"
_HOUR = r"(?:[01]\d|2[0-3])[0-5]\d"
_NOT_MEASURED = rf"(?!\s*-?{UNIT}\b)(?!\.\d)(?!\s*(?:-|x|to)\s*\d)"
_NUMBER = r"(?:(?:number|no|num|nr|id)\b\.?|#)"


def bounded(pattern: str) -> str:
    """``pattern`` with at most nine blanks wherever it allows any number: a page of blanks costs linear
    time.
    """
    for blank in (r"\s", r"[ \t]"):
        pattern = pattern.replace(blank + "*", blank + "{0,9}").replace(blank + "+", blank + "{1,9}")
    return pattern


def rule(kind: str, *parts: str, check: Check | None = None, case: bool = False) -> Rule:
    """A rule from the parts of its pattern; ``check`` has the last word on a match."""
    return kind, re.compile(bounded("".join(parts)), 0 if case else re.IGNORECASE), check


def find(rules: list[Rule], text: str) -> Iterator[Found]:
    """Every match of ``rules`` that passes its check."""
    for kind, pattern, check in rules:
        for match in pattern.finditer(text):
            if check is None or check(match):
                yield *match.span("x" if "x" in pattern.groupindex else 0), kind


def find_patterns(text: str) -> Iterator[Found]:
    """Everything in ``text`` that has a shape of this file."""
    return find(_RULES, text)


def _valid_triple(match: re.Match[str]) -> bool:
    """Whether three numbers can be day, month and year in an order that is in use."""
    a, b, c = (int(n) for n in re.findall(r"\d+", match.group())[:3])
    low, high = sorted((a, b)) if a < 1000 else sorted((b, c))
    return 1 <= low <= 12 and 1 <= high <= 31


def _valid_pair(match: re.Match[str]) -> bool:
    low, high = sorted(int(n) for n in re.findall(r"\d+", match["x"])[:2])
    return 1 <= low <= 12 and 1 <= high <= 31


def _no_unit(match: re.Match[str]) -> bool:
    behind = match.string[match.end() : match.end() + 12]
    return not re.match(rf"\s*-?{UNIT}\b", behind, re.IGNORECASE)


_GUIDELINE = re.compile(
    r"(?:fleischner(?:\ssociety)?|guidelines?|criteria|acr|who|ats|nccn|version|edition|tnm)\W{1,3}$",
    re.IGNORECASE,
)


def _no_unit_no_guideline(match: re.Match[str]) -> bool:
    """A year, but not that of a guideline: "Fleischner 2017"."""
    before = match.string[max(0, match.start() - 24) : match.start()]
    return not _GUIDELINE.search(before) and _no_unit(match)


def _has_digit(match: re.Match[str]) -> bool:
    return any(c.isdigit() for c in match["x"])


def _seven_digits(match: re.Match[str]) -> bool:
    return sum(c.isdigit() for c in match.group()) >= 7


_LINKS = [
    rule("EMAIL", r"[\w.+%-]{1,64}\s?@\s?[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,8}"),
    rule("EMAIL", r"(?=[\d.+%-]{0,64}[a-z])[\w.+%-]{1,64}@[a-z][\w-]{0,63}"),
    rule("URL", r"\b(?:https?|ftp|file)://[^\s<>\"']+|\bwww\.[^\s<>\"']+"),
    rule(
        "URL",
        r"(?<![\w.@])(?:[a-z0-9-]{1,63}\.){1,8}(?:com|org|net|edu|gov|mil|info|health|co\.uk|nhs\.uk)\b",
        r"(?:/[^\s<>\"']*)?",
    ),
    rule("ID", r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]\d)"),  # an IP address
]

_DATES = [
    rule(
        "DATE",
        rf"(?<!\d){_YEAR}\s?([-/.])\s?(?:1[0-2]|0?[1-9])\s?\1\s?(?:3[01]|[12]\d|0?[1-9])(?!\d)(?:T[\d:.]+Z?)?",
    ),
    rule("DATE", r"(?<![\d.])\d{1,2}([/.-])\1?\d{1,2}\1{1,2}(?:\d{4}|\d{2})(?!\d)", check=_valid_triple),
    rule("DATE", rf"(?<![\d/.])(?:1[0-2]|0?[1-9])\s?[/-]\s?{_YEAR}(?!\d)"),
    rule("DATE", rf"(?<!\d){_YEAR}(?:1[0-2]|0[1-9])(?:3[01]|[12]\d|0[1-9])(?:[T_-]?\d{{4,6}})?(?!\d)"),
    rule(
        "DATE",
        rf"(?<![\w.]){_DAY}(?:\s+of)?[\s./-]{{0,3}}{_MONTH}",
        rf"(?:[\s.,/-]{{0,3}}{_SHORT_YEAR}(?!\d)(?!\s*{UNIT}\b))?",
    ),
    rule("DATE", rf"(?<!\w){_MONTH}[\s,.-]{{0,3}}{_DAY}(?:\s*,?\s*-?{_SHORT_YEAR}(?!\d))?(?!\w)", _NOT_MEASURED),
    rule(
        "DATE",
        rf"(?<!\w)(?:{_MONTH}|may\b\.?)[\s,./-]{{0,3}}(?:of\s+)?(?:{_YEAR}|['\u2019]\d\d)(?!\d)(?!\s*{UNIT}\b)",
    ),
    rule(
        "DATE",
        rf"(?<![\w.]){_DAY}(?:\s+of)?[\s./-]{{0,3}}may\b[\s.,/-]{{0,3}}(?:{_YEAR}|['\u2019]\d\d)(?!\d)",
    ),
    rule(
        "DATE",
        rf"(?<![\w.]){_DAY}(?:-|\s+of\s+|(?<=[a-z])\s)May\b(?:[\s.,-]{{0,3}}\d{{2}}(?!\d))?",
        case=True,
    ),
    rule(
        "DATE",
        rf"(?<!\w)May[\s,.-]{{0,3}}{_DAY}(?:\s*,?\s*{_SHORT_YEAR}(?!\d))?(?!\w)",
        _NOT_MEASURED,
        case=True,
    ),
    rule("DATE", rf"(?<!\w)MAY[\s,.-]{{1,3}}(?i:{_DAY})(?:\s*,?\s*{_YEAR}|(?<=[STNRDH])\b)(?!\d)", case=True),
    rule("DATE", rf"(?<!\w){_DAY}[\s-]{{1,2}}MAY[\s-]{{1,2}}\d{{2,4}}(?!\d)", case=True),
    rule(
        "DATE",
        r"\b(?:in|since|during|from|of|last|this|early|late|mid|until|dated|through|to|and)[\s-]+",
        rf"(?P<x>{_MONTH_NAMES})\b(?!\s+fracture)",  # a march fracture is one of the foot
    ),
    rule("DATE", r"\b(?:in|since|during|last|this|early|late|mid|dated)[\s-]+(?P<x>May)\b", case=True),
    rule(
        "DATE",
        r"\b(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day\b|\b(?:MON|TUES|WEDNES|THURS|FRI|SATUR|SUN)DAY\b",
        case=True,
    ),
    rule("DATE", r"\b(?:christmas|thanksgiving|easter|new\s+year's(?:\s+(?:eve|day))?)\b"),
    rule(
        "DATE",
        r"(?<![\w.,:/#-])(?P<x>(?:19[2-9]|20[0-4])\d)(?:['\u2019]?s)?(?![\w]|[.,:]\d|\s*[-x]\s*\d|\s?%)",
        check=_no_unit_no_guideline,
    ),
    rule("DATE", r"(?<![\w\d])['\u2019]\d\d(?!\w)"),
    rule(
        "DATE",
        r"\b(?:on|dated|date|from|since|until|through|exam|film|radiographs?|x-?rays?|cxr|ct|study|prior|comparison",
        r"|compared\s+to|of|to|and)\s*:?\s+(?P<x>\d{1,2}/\d{1,2})(?![\d/]|\.\d|-\d)",
        rf"(?!\s*(?:{UNIT}|of|views?|images?|films?|ribs?|the|th|lung|way|to|inch|lobes?|normal|strength)\b)",
        r"(?!\s*(?:weeks?|days?|months?|years?|hours?)\b)",
        check=_valid_pair,
    ),
]

_TIMES = [
    rule(
        "TIME",
        r"(?<![\d:.])(?:[01]?\d|2[0-3])[:h][0-5]\d(?::[0-5]\d(?:\.\d+)?)?(?![\d:])",
        r"(?:\s?(?:[ap]\.?\s?m\b\.?|hrs?\b|hours\b|h\b|uhr\b))?(?:\s(?:[ECMP][SD]T|GMT|UTC)\b)?",
    ),
    rule("TIME", r"(?<![\d:.])(?:1[0-2]|0?[1-9])\s?(?:[ap]\.m\b\.?|[ap]m\b)"),
    rule("TIME", rf"(?:\bat|@)\s?(?P<x>{_HOUR})(?![\d.])(?:\s?(?:h|hrs?|hours)\b)?", check=_no_unit),
    rule("TIME", rf"(?:(?<=[/-]\d\d)|(?<=[/-]\d{{4}}))\s(?P<x>{_HOUR})(?![\d.])", check=_no_unit),  # behind a date
    rule("TIME", rf"(?<![\d.]){_HOUR}\s?(?:h|hrs|hours)\b"),
]

_AGES = [
    rule(
        "AGE",
        r"(?<![\d.])\d{1,3}[\s-]?(?:years?|yrs?|months?|mos?|weeks?|wks?|days?|y)",
        r"[\s-]?(?:old|of[\s-]age|/?\s?o\b|\.o\.)",
    ),
    rule(
        "AGE",
        r"(?<![\d.])\d{1,3}\s?(?:y\.\s?o\.|y/?o)",
        r"(?:\s?(?:[mf]|male|female|man|woman|boy|girl|gentleman|lady))?(?=[\s,.;)]|$)",
    ),
    rule("AGE", r"(?<![\d.])\d{1,3}\s?(?:y|yrs?)\s?(?:[mf]|male|female|man|woman|boy|girl)(?=[\s,.;)]|$)"),
    rule("AGE", r"(?<![\d.])\d{2}y(?=[\s,.;)]|$)"),
    rule("AGE", r"\bage[d:]?\s*(?:of\s+)?(?P<x>\d{1,3})(?![\d.])"),
    rule(
        "AGE",
        r"(?<![\w.-])\d{2}\s?[MF](?=\s+(?:with|w/|p/w|s/p|presents?|presenting|c/o|hx|history|who|has|admitted)\b)",
    ),
    rule("AGE", r"(?<![\d.])\d{2}[\s-](?:year|yr)[\s-](?:male|female|man|woman)\b"),
]

_PHONES = [
    rule("PHONE", r"(?<![\w.])(?:\+|00)\d{1,3}[\s.()/-]{0,3}(?:\d[\s.()/-]{0,2}){6,12}\d"),
    rule(
        "PHONE",
        r"(?<![\w.])(?:1[-.\s])?(?:\(\d{3}\)\s?|\d{3}[-.\s])\d{3}[-.\s]\d{4}(?!\d)",
        r"(?:\s?(?:x|ext\.?)\s?\d{2,6})?",
    ),
    rule("PHONE", r"(?<![\w.-])\d{3}-\d{4}(?![\w-])"),
    rule("PHONE", r"(?<![\w.])0\d{1,5}[\s/-]\d{3,8}(?:[\s-]\d{2,5})?(?!\d)"),
    rule("PHONE", r"(?<![\w.])\d{2}(?:([ .])\d{2})(?:\1\d{2}){3}(?![\d.])"),
    rule(
        "PHONE",
        r"\b(?:ext(?:ension)?|pager|beeper|bleep|page|fax|tel(?:ephone)?|phone|ph|cell|mobile",
        r"|call(?:ed)?(?:\s+back)?\s+at)\b[\s.:#]{0,3}(?:(?:no|number|num)\b)?[\s.:#]{0,3}",
        r"(?P<x>\+?\(?\d(?:[\d().-]|\s(?=\d)){1,14}\d)(?!\w)",
    ),
    rule("PHONE", r"(?<![\w])x\s?(?P<x>\d{4,6})(?!\d)"),
]

_NUMBERS = [
    rule(
        "ID",
        r"\b(?:mrn|mr\s?#|medical\s+record|acc(?:ession)?|acct|account|patient\s+(?:id|no|number)",
        r"|hospital\s+(?:no|number)|csn|fin|ssn|social\s+security|nhs|npi|dea|urn|nric|ins(?:urance)?|policy",
        r"|licen[sc]e|serial\s+(?:no|number)|study\s+id|exam\s+id|requisition)\b[\s:#=.-]{0,3}",
        rf"{_NUMBER}?[\s:#=.-]{{0,3}}(?P<x>\w[\w/.-]{{0,60}}\w)",
        check=_has_digit,
    ),
    rule(
        "ID",
        r"\b(?:id|case|order|visit|encounter|record|file|chart|job|report|exam|study|dictation|document",
        r"|transcription|unit|reference|ref)\s*(?:[#:=]|(?:number|no|id)\b\.?)[\s:#=.-]{0,3}(?P<x>\w[\w/.-]{0,60}\w)",
        check=_has_digit,
    ),
    rule(
        "ID",
        r"\b(?:job|dictation|transcription|confirmation|voice\s+id|requisition|ticket|document|episode)",
        r"\s+(?P<x>\d{4,})(?!\d)",
    ),
    rule("ID", r"#\s?(?P<x>\d{3,})"),
    rule("ID", r"(?<![\w.])\d+(?:\.\d+){4,40}(?![\w.]\d)"),  # a unique identifier
    rule("ID", r"(?<![\d.,])\d{5,}(?!\d)"),
    rule(
        "ID",
        r"(?<![\w.])\d{2,6}([-/ ])\d{2,6}(?:\1\d{2,6}){0,3}(?!\w|\.\d)(?!\s*-?(?:x|cm|mm|ml|cc)\b)",
        check=_seven_digits,
    ),
    rule(
        "ID",
        r"(?<![\w-])(?=[a-z0-9_-]*\d{4})(?=[0-9_-]*[a-z])[a-z0-9]+(?:[_-][a-z0-9]+)*(?![\w])",
        r"(?<!mm)(?<!cm)(?<!ml)(?<!cc)(?<!mg)(?<!s)",
    ),
    rule("ID", r"(?<![\w-])(?=(?:[a-z_-]*\d){5})(?=[0-9_-]*[a-z])[a-z0-9]+(?:[_-][a-z0-9]+)*(?![\w])"),
]

_RULES = [*_LINKS, *_DATES, *_TIMES, *_AGES, *_PHONES, *_NUMBERS]
