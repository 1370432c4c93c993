"""Sections: literal reports, reports assembled from real sections in many styles, and invariants."""

from __future__ import annotations

import csv
import importlib.util
import random
import re
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.language.sections import Sections, split_report

_spec = importlib.util.spec_from_file_location("report_styles", Path(__file__).with_name("styles.py"))
styles = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(styles)

LITERAL = [
    (
        "FINAL REPORT\nEXAM: CHEST PA AND LATERAL\n\nINDICATION: 54M with cough\n\nCOMPARISON: None.\n\n"
        "FINDINGS: The lungs are clear. Findings are unchanged.\nBONES: intact.\n\nIMPRESSION:\n"
        "1. No acute disease.\n2. Stable.\n\nElectronically signed by A Person",
        Sections(
            findings="The lungs are clear. Findings are unchanged. BONES: intact.",
            impression="1. No acute disease. 2. Stable.",
            indication="54M with cough",
            comparison="None.",
            rest="FINAL REPORT EXAM: CHEST PA AND LATERAL Electronically signed by A Person",
        ),
    ),
    ("No acute disease.", Sections(findings="No acute disease.")),
    ("", Sections()),
    (" \r\n\t\x85", Sections()),
    ("IMPRESSION:", Sections()),
    ("IMP: Normal.", Sections(impression="Normal.")),
    ("IMPRESSION NO ACUTE DISEASE.", Sections(impression="NO ACUTE DISEASE.")),
    ("Impression: Stable.\nFindings suggest CHF.", Sections(impression="Stable. Findings suggest CHF.")),
    (
        "HX - cough\nCOMP - none\nFIND - clear lungs\nIMP - normal",
        Sections(findings="clear lungs", impression="normal", indication="cough", comparison="none"),
    ),
    (
        "chest pain. findings: lungs clear. impression: normal",
        Sections(rest="chest pain.", findings="lungs clear.", impression="normal"),
    ),
    (
        "TECHNIQUE: PA.  FINDINGS:Clear.IMPRESSION:Normal.",
        Sections(technique="PA.", findings="Clear.", impression="Normal."),
    ),
    (
        "CHEST 2 VIEWS\nHeart is normal. IMPRESSION: Normal.",
        Sections(findings="Heart is normal.", impression="Normal.", rest="CHEST 2 VIEWS"),
    ),
    ("FINDINGS/IMPRESSION: Clear.", Sections(findings="Clear.")),
    ("Findings and Impression - Clear.", Sections(findings="Clear.")),
    ("IMPRESSION AND RECOMMENDATIONS: Clear.", Sections(impression="Clear.")),
    (
        "[INDICATION] cough [FINDINGS] clear lungs [IMPRESSION] normal",
        Sections(indication="cough", findings="clear lungs", impression="normal"),
    ),
    ("**Findings:** clear **Impression:** normal", Sections(findings="clear", impression="normal")),
    ("## Findings\nclear\n\n## Impression\nnormal", Sections(findings="clear", impression="normal")),
    ("1. FINDINGS: clear\n2. IMPRESSION: normal", Sections(findings="clear", impression="normal")),
    ("COMPARISON (chest film): none. FINDINGS (PA): ok", Sections(comparison="none.", findings="ok")),
    (
        "Clear lungs, prior film used for\ncomparison.\nIMPRESSION: Normal.",
        Sections(findings="Clear lungs, prior film used for comparison.", impression="Normal."),
    ),
    (
        "NO EFFUSION. THE FINDINGS: WERE DISCUSSED.\nIMPRESSION: OK",
        Sections(findings="NO EFFUSION. THE FINDINGS: WERE DISCUSSED.", impression="OK"),
    ),
    ("Clinical impression: CHF. Findings: none seen", Sections(indication="CHF.", findings="none seen")),
    ("IMPRESSION: Clear.\nIMPRESSION: No change.", Sections(impression="Clear. No change.")),
    ("FINDINGS: Left-\nsided pacemaker.", Sections(findings="Left-sided pacemaker.")),
    (
        "ADDENDUM: compared with the outside film.\nFINDINGS: clear.\nIMPRESSION: normal.",
        Sections(findings="clear.", impression="normal.", addendum="compared with the outside film."),
    ),
    (
        "IMPRESSION: clear.\nADDENDUM 1 10:30: IMPRESSION: tiny pneumothorax.\nEnd of addendum",
        Sections(impression="clear.", addendum="10:30: IMPRESSION: tiny pneumothorax.", rest="End of addendum"),
    ),
    (
        "ADDENDUM\nRib fracture.\nORIGINAL REPORT\nFINDINGS: clear.",
        Sections(findings="clear.", addendum="Rib fracture.", rest="ORIGINAL REPORT"),
    ),
    (
        "IMPRESSION: Nodule.\nRECOMMENDATION: CT in 3 months.",
        Sections(impression="Nodule.", rest="RECOMMENDATION: CT in 3 months."),
    ),
    (
        "HX: [NAME], [AGE].\nCOMP: [DATE]\nIMP: clear per [NAME]. [DATE]: film.",
        Sections(indication="[NAME], [AGE].", comparison="[DATE]", impression="clear per [NAME]. [DATE]: film."),
    ),
    ("IMPRESSION: Normal. Dictated by: A B", Sections(impression="Normal.", rest="Dictated by: A B")),
]


@pytest.mark.parametrize(("text", "expected"), LITERAL)
def test_literal_reports(text: str, expected: Sections) -> None:
    assert split_report(text) == expected


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x85", "\u2028", "\u2029", "\x0b", "\x0c"])
def test_every_line_end_gives_the_same_sections(end: str) -> None:
    text = "HISTORY\nfall\n\nFINDINGS\nNo fracture.\nNo effusion.\n\nIMPRESSION\nNormal."
    assert split_report(text.replace("\n", end)) == split_report(text)
    assert split_report(text).findings == "No fracture. No effusion."


def test_invisible_characters_do_not_hide_a_heading() -> None:
    assert split_report("\ufeffFINDINGS:\xa0clear\nIMP\u200bRESSION: ok").impression == "ok"


WORDS = st.lists(
    st.sampled_from(["lungs clear", "no effusion", "heart normal", "3.5 cm", "T4", "1/2", "the left base"]),
    min_size=1,
    max_size=12,
).map(lambda words: " ".join(words).capitalize() + ".")


@given(
    texts=st.fixed_dictionaries({}, optional={name: WORDS for name in styles.LONG}),
    shape=st.sampled_from(styles.SHAPES),
    heading=st.sampled_from(["plain", "title", "wordy"]),
    end=st.sampled_from(styles.LINE_ENDS),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=150, deadline=None)
def test_assembled_reports_come_apart_again(
    texts: dict[str, str], shape: str, heading: str, end: str, seed: int
) -> None:
    report = styles.write(texts, shape, heading, random.Random(seed)).replace("\n", end)
    found = split_report(report)
    assert {name: getattr(found, name) for name in styles.LONG} == {name: texts.get(name) for name in styles.LONG}


PIECES = st.lists(
    st.sampled_from(
        [
            *("FINDINGS:", "impression", "ADDENDUM", "[", "]", "**", "IMP", "-", "\n", "\r", ".", "clear."),
            *("History", "(IMPRESSION)", "-----", "HX:", "1.", ":", "THE", "Dictated by"),
        ]
    )
    | st.integers(0, 99).map("q{}x".format),
    max_size=40,
)


@given(PIECES, st.sampled_from([" ", "", "\n"]))
@settings(max_examples=250, deadline=None)
def test_no_word_is_lost_but_headings(pieces: list[str], space: str) -> None:
    text = space.join(pieces)
    found = split_report(text)
    kept = " ".join(getattr(found, name) or "" for name in found.__dataclass_fields__)
    marker = re.compile(r"q\d+x")
    assert Counter(marker.findall(kept)) == Counter(marker.findall(text))


@given(st.text(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_string_is_split(text: str) -> None:
    found = split_report(text)
    for name in found.__dataclass_fields__:
        part = getattr(found, name)
        assert part is None or (part and part == " ".join(part.split()))


@pytest.mark.parametrize("unit", ["findings ", "FINDINGS: ", "-", "[", "\n", "addendum ", "history, ", "read by "])
def test_a_hostile_text_costs_linear_time(unit: str) -> None:
    def seconds(size: int) -> float:
        start = time.process_time()
        split_report(unit * (size // len(unit)))
        return time.process_time() - start

    seconds(2_000)
    small, large = min(seconds(5_000) for _ in range(3)), min(seconds(40_000) for _ in range(2))
    assert large < 8 * 4 * small + 0.05


@pytest.mark.real
def test_real_sections_come_apart_again(dev_data: Path) -> None:
    """Real sections assembled in every style; a few begin with a heading of their own, so not all can be
    equal.
    """
    with open(dev_data / "reports" / "openi_reports.csv", newline="", encoding="utf-8") as file:
        reports = list(csv.DictReader(file))[::60]
    rng = random.Random(0)
    wrong: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for report in reports:
        clean = {
            name: " ".join(report[name].split()) for name in ("indication", "comparison", "findings", "impression")
        }
        clean = {name: text for name, text in clean.items() if re.search(r"\w", text)}
        for shape in styles.SHAPES:
            for heading in styles.HEADINGS:
                if shape == "bare_upper" and heading in ("short", "lower"):
                    continue
                shout = rng.random() < 0.2
                sections = {name: text.upper() if shout else text for name, text in clean.items()}
                text = styles.write(sections, shape, heading, rng)
                text = (text.upper() if shout else text).replace("\n", rng.choice(styles.LINE_ENDS))
                found = split_report(text)
                total[shape] += 1
                wrong[shape] += any(getattr(found, name) != sections.get(name) for name in styles.LONG)
    assert sum(total.values()) > 1500
    assert {shape: wrong[shape] / total[shape] for shape in total if wrong[shape] > 0.06 * total[shape]} == {}
    assert sum(wrong.values()) < 0.03 * sum(total.values())
