"""Report styles for the section tests: each turns known sections into one noisy text."""

from __future__ import annotations

import random
import textwrap

LONG = ("indication", "technique", "comparison", "findings", "impression")
HEADINGS = {
    "plain": dict(zip(LONG, ("INDICATION", "TECHNIQUE", "COMPARISON", "FINDINGS", "IMPRESSION"))),
    "title": dict(zip(LONG, ("Clinical History", "Technique", "Comparison", "Findings", "Impression"))),
    "short": dict(zip(LONG, ("HX", "TECH", "COMP", "FIND", "IMP"))),
    "wordy": dict(
        zip(LONG, ("REASON FOR EXAM", "TECHNIQUE", "COMPARISON STUDY", "RADIOGRAPHIC FINDINGS", "CONCLUSION"))
    ),
    "lower": dict(zip(LONG, ("indication", "technique", "comparison", "findings", "impression"))),
}
LINE_ENDS = ("\n", "\r\n", "\r", "\x85", "\u2028")
SHAPES = ("colon", "colon_line", "alone", "dash", "bracket", "markdown", "one_line", "bare_upper", "tight")
"""``tight``: no blank lines and no space behind the colon."""


def write(sections: dict[str, str], shape: str, heading: str, rng: random.Random) -> str:
    """A report in one style. Sections that are empty get a heading with nothing behind it, or none at all."""
    names = HEADINGS[heading]
    width = rng.choice((50, 72, 10_000))
    blocks = []
    for section in LONG:
        text = sections.get(section, "")
        if not text and (shape in ("one_line", "bare_upper") or rng.random() < 0.7):
            continue
        wrapped = "\n".join(textwrap.wrap(text, width)) or text
        name = names[section]
        blocks.append(
            {
                "colon": f"{name}: {wrapped}",
                "colon_line": f"{name}:\n{wrapped}",
                "alone": f"{name}\n{wrapped}",
                "dash": f"{name} - {wrapped}",
                "bracket": f"[{name}] {wrapped}",
                "markdown": f"**{name}:** {wrapped}",
                "one_line": f"{name}: {text}",
                "bare_upper": f"{name.upper()} {wrapped}",
                "tight": f"{name}:{wrapped}",
            }[shape]
        )
    if shape == "one_line":
        return " ".join(blocks)
    return ("\n" if shape == "tight" else rng.choice(("\n\n", "\n", "\n \n"))).join(blocks)
