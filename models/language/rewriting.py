"""One report in the style of another house: abbreviated or written out, telegraphic or in sentences.

    abbreviate("No pneumothorax in the right upper lobe.")    # "No PTX in the RUL."
    expand("No PTX in the RUL.")                              # "No pneumothorax in the right upper lobe."
    rewrite(report, house("brief"), seed=1).text

Both ways are tables and rules, no model. A rewritten sentence is taken only if, read again, it says of every
finding what it said, with the same side, degree and size; else it stays as it was. A local language model may be
handed in as the writer; it is off unless one is, and what it writes passes the same check.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal, NamedTuple, get_args

from models.config import ConfigError, build, config
from models.language.attributes import attributes
from models.language.draft import Draft, Line, draft, line
from models.language.mentions import read_sentence, spoken
from models.language.sections import Sections
from models.language.tokens import abbreviations
from models.language.vocabulary import load
from models.randomness import stream_seed

Sort = Literal["finding", "place", "device", "phrase", "technique"]
SORTS: tuple[Sort, ...] = get_args(Sort)
Writer = Callable[[str], str]
"""A local language model: a section's text in, its rewriting out. It must not send the text anywhere."""


@config
class House:
    """How one house writes.

    Attributes:
        abbreviate: sorts of words that are abbreviated.
        share: of the places where a word could be abbreviated, how many are.
        expand: whether abbreviations are written out.
        telegraphic, prose: whether verbs and articles are left out, or put in.
        synonyms: chance that a phrase with a synonym is exchanged for it.
        upper: whether all is in capitals.
        sections: which sections are filed; ``impression`` where a report has one, else all.
        headings: ``colon`` ("FINDINGS: ..."), ``line`` (alone on a line), ``tag`` ("[FINDINGS] ..."), or ``none``.
        numbered: whether the sentences of the impression are numbered.
        shuffle: whether the sentences of a section change places.
    """

    abbreviate: tuple[Sort, ...] = ()
    share: float = 1.0
    expand: bool = False
    telegraphic: bool = False
    prose: bool = False
    synonyms: float = 0.0
    upper: bool = False
    sections: Literal["both", "findings", "impression"] = "both"
    headings: Literal["colon", "line", "tag", "none"] = "colon"
    numbered: bool = False
    shuffle: bool = False

    def check(self) -> None:
        """Contradictions and values out of range."""
        for key, value in (("share", self.share), ("synonyms", self.synonyms)):
            if not 0 <= value <= 1:
                raise ValueError(f"{key} {value}: must lie between 0 and 1")
        if self.expand and self.abbreviate:
            raise ValueError("expand and abbreviate contradict each other: choose one")
        if self.telegraphic and self.prose:
            raise ValueError("telegraphic and prose contradict each other: choose one")


class Rewritten(NamedTuple):
    """A report in another style.

    Attributes:
        sections: its sections.
        text: the whole, with headings as the house sets them.
        changed: (before, after) of every sentence that was rewritten.
        writer: ``rules``, or ``model`` where a language model wrote every section that is in ``sections``.
    """

    sections: Sections
    text: str
    changed: tuple[tuple[str, str], ...]
    writer: Literal["rules", "model"]


def house(name: str) -> House:
    """A shipped house.

    Raises:
        ConfigError: if there is none of that name.
    """
    table = load("styles")["houses"]
    if name not in table:
        raise ConfigError(f"house {name!r}: not known; shipped are {', '.join(sorted(table))}")
    return build(House, table[name], f"houses.{name}")


def houses() -> list[str]:
    """Names of the shipped houses."""
    return sorted(load("styles")["houses"])


def rewrite(report: str | Sections, style: House, seed: int, writer: Writer | None = None) -> Rewritten:
    """``report`` as ``style`` writes it. The same seed, the same text.

    Args:
        writer: a local language model that is asked first; off by default.
    """
    rng = random.Random(stream_seed(seed, "rewrite"))
    original = draft(report, split=False)
    by_model = _written(original, style, writer) if writer is not None else None
    if by_model is not None:
        return Rewritten(by_model.sections(), _laid_out(by_model, style), (), "model")
    filed = _filed(original, style)
    lines, changed = [], []
    for old in filed.lines:
        text = restyled(old.text, style, rng)
        if text != old.text:
            changed.append((old.text, text))
        lines.append(line(old.section, text))
    if style.shuffle:
        order = [k for section in ("findings", "impression", "addendum") for k in _shuffled(lines, section, rng)]
        lines = [lines[k] for k in order]
    made = Draft(tuple(lines))
    return Rewritten(made.sections(), _laid_out(made, style), tuple(changed), "rules")


def restyled(sentence: str, style: House, rng: random.Random) -> str:
    """One sentence as ``style`` writes it; every step that would change what it says is left out."""
    steps: list[Callable[[str], str]] = []
    if style.expand:
        steps.append(expand)
    if style.synonyms:
        steps.append(lambda text: with_synonyms(text, style.synonyms, rng))
    if style.telegraphic:
        steps.append(telegraphic)
    if style.prose:
        steps.append(prose)
    if style.abbreviate:
        steps.append(lambda text: abbreviate(text, style.abbreviate, style.share, rng))
    if style.upper:
        steps.append(str.upper)
    for step in steps:
        new = step(sentence)
        if new != sentence and means_the_same(sentence, new):
            sentence = new
    return sentence


def means_the_same(a: str, b: str) -> bool:
    """Whether two sentences say the same of every finding, with the same side, degree and size."""
    x, y = read_sentence(a), read_sentence(b)
    if spoken([x]) != spoken([y]) or x.other != y.other:
        return False
    one, two = attributes(a, x), attributes(b, y)
    return {k: v._replace(degrees=_degrees(v.degrees)) for k, v in one.items()} == {
        k: v._replace(degrees=_degrees(v.degrees)) for k, v in two.items()
    }


def _degrees(words: frozenset[str]) -> frozenset[str]:
    """Degrees with "slight" as "mild": they are synonyms."""
    return frozenset({"slight": "mild", "slightly": "mildly"}.get(word, word) for word in words)


def abbreviate(text: str, sorts: Sequence[Sort] = SORTS, share: float = 1.0, rng: random.Random | None = None) -> str:
    """``text`` with phrases as their short forms: all of them, or each with the chance ``share``."""
    chance = rng or random.Random(0)

    def short(match: re.Match[str]) -> str:
        if share < 1 and chance.random() >= share:
            return match.group()
        form = _short_forms(tuple(sorts))[1][" ".join(match.group().lower().split())]
        if text.isupper():
            return form.upper()
        return form[0].upper() + form[1:] if match.group()[0].isupper() else form

    return _short_forms(tuple(sorts))[0].sub(short, text)


def expand(text: str) -> str:
    """``text`` with short forms written out; what may mean several things stays."""
    pattern, table = _long_forms()
    shouting = text.isupper()

    def long(match: re.Match[str]) -> str:
        form = table[match.group().lower()]
        if shouting:
            return form.upper()
        start = match.start() == 0 or text[: match.start()].rstrip().endswith((".", ":", "!", "?"))
        return form[0].upper() + form[1:] if start else form

    return pattern.sub(long, text)


def telegraphic(sentence: str) -> str:
    """``sentence`` without the verbs and articles that a hurried writer leaves out."""
    text = sentence
    for pattern, instead in load("styles")["telegraphic"]:
        text = re.sub(pattern, instead, text, flags=re.IGNORECASE)
    text = re.sub(r"\s+([.,;])", r"\1", re.sub(r"\s{2,}", " ", text)).strip()
    return text[:1].upper() + text[1:] if text else sentence


def prose(sentence: str) -> str:
    """``sentence`` as a whole one, if it has no verb and begins as telegraphic ones do."""
    styles = load("styles")
    if frozenset(re.findall(r"[a-z]+", sentence.lower())) & frozenset(styles["verbs"].split()):
        return sentence
    for pattern, instead in styles["prose"]:
        match = re.match(pattern, sentence)
        if match is None:
            continue
        text, subject = match.expand(instead), _subject(match[1])
        plural = bool(subject) and subject[-1].endswith("s") and not subject[-1].endswith(("ss", "is", "us"))
        text = text.replace(" is ", " are ", 1) if plural else text
        return _with_article(text, plural)
    return sentence


def _subject(phrase: str) -> list[str]:
    """Words of a phrase up to its first preposition or comma: the last is its noun."""
    words = re.findall(r"[a-z]+|[,.;]", phrase.lower())
    stop = next(
        (k for k, w in enumerate(words) if w in ("in", "of", "at", "with", "without", ",", ".", ";", "or", "and")), None
    )
    return words[:stop]


def _with_article(text: str, plural: bool) -> str:
    """ "There is small effusion" as "There is a small effusion", and the first word in its sentence's case."""
    for verb in ("There is ", "There are ", "The "):
        if not text.startswith(verb):
            continue
        rest = text[len(verb) :]
        first = rest.split(" ", 1)[0]
        low = rest if first.isupper() and len(first) > 1 else rest[:1].lower() + rest[1:]
        counted = re.search(r"\b(?:effusion|opacity|pneumothorax|nodule|mass|fracture|infiltrate|consolidation)\b", low)
        if verb == "There is " and not plural and counted and not low.startswith("no "):
            low = ("an " if low[:1] in "aeiou" else "a ") + low
        return verb + low
    return text


def with_synonyms(text: str, chance: float, rng: random.Random) -> str:
    """``text`` with phrases exchanged for synonyms, each with the given chance, where that keeps the meaning."""
    for group in load("styles")["synonyms"]:
        for phrase in sorted(group, key=len, reverse=True):  # "normal" is not exchanged within "within normal limits"
            match = re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE)
            if match is None:
                continue
            if rng.random() >= chance:
                break
            other = rng.choice([p for p in group if p != phrase])
            other = other[0].upper() + other[1:] if match.group()[0].isupper() else other
            new = text[: match.start()] + other + text[match.end() :]
            if means_the_same(text, new):
                text = new
            break
    return text


def _written(original: Draft, style: House, writer: Writer) -> Draft | None:
    """What the model makes of every section, if it keeps what each says."""
    filed = _filed(original, style)
    lines: list[Line] = []
    for section in dict.fromkeys(one.section for one in filed.lines):
        before = Draft(tuple(one for one in filed.lines if one.section == section))
        parts = Sections(**{section: writer(before.text(section))})
        after = draft(parts, split=False)
        if after.said() != before.said() or after.attributes() != before.attributes():
            return None
        lines += after.lines
    return Draft(tuple(lines)) if lines else None


def _filed(original: Draft, style: House) -> Draft:
    kept = tuple(one for one in original.lines if style.sections in ("both", one.section))
    return Draft(kept) if kept else original


def _shuffled(lines: Sequence[Line], section: str, rng: random.Random) -> list[int]:
    places = [k for k, one in enumerate(lines) if one.section == section]
    rng.shuffle(places)
    return places


def _laid_out(made: Draft, style: House) -> str:
    """The whole report with headings."""
    blocks = []
    for section in ("findings", "impression", "addendum"):
        texts = [one.text for one in made.lines if one.section == section]
        if not texts:
            continue
        if style.numbered and section == "impression" and len(texts) > 1:
            texts = [f"{k}. {text}" for k, text in enumerate(texts, start=1)]
        body, name = " ".join(texts), section.upper()
        head = {"colon": f"{name}: ", "line": f"{name}\n", "tag": f"[{name}] ", "none": ""}[style.headings]
        blocks.append(head + body)
    return ("\n\n" if style.headings == "line" else "\n").join(blocks)


@cache
def _short_forms(sorts: tuple[str, ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    unknown = set(sorts) - set(SORTS)
    if unknown:
        raise ValueError(f"abbreviate: {sorted(unknown)} not known; sorts are {', '.join(SORTS)}")
    table = {long: short for long, short, sort in load("abbreviations")["write"] if sort in sorts}
    return _alternatives(table), table


@cache
def _long_forms() -> tuple[re.Pattern[str], dict[str, str]]:
    table: dict[str, str] = {}
    for long, short, _ in load("abbreviations")["write"]:
        table.setdefault(short.lower(), long)
    careful = frozenset(load("styles")["careful"])
    for short, words in abbreviations().items():
        if short not in careful and "'" not in short and short not in table:
            table[short] = " ".join(words)
    table = {short: long for short, long in table.items() if short not in ("pa", "ap", "ct", "&", "+ve", "-ve")}
    return _alternatives(table), table


def _alternatives(table: dict[str, str]) -> re.Pattern[str]:
    words = sorted(table, key=len, reverse=True)
    joined = "|".join(r"\s+".join(map(re.escape, word.split())) for word in words)
    return re.compile(rf"(?<![\w/.-])(?:{joined or '(?!)'})(?![\w/-])", re.IGNORECASE)
