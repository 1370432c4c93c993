"""Reports against a grammar written here, apart from the generator's own bookkeeping."""

import dataclasses
import datetime
import re

import numpy as np
import pytest

from client.ingest.phantom.habits import Dictation
from client.ingest.phantom.patients import patients
from client.ingest.phantom.people import invent_hospital, invent_person
from client.ingest.phantom.reports import write_report
from client.ingest.phantom.style import STYLES
from models.config import ConfigError, build
from models.studies.schema import CHEXPERT, Label

NAMED = {
    "Cardiomegaly": r"cardiomegaly|cardiac enlargement|enlargement of the heart",
    "Enlarged Cardiomediastinum": r"mediastinal widening|widening of the mediastinum",
    "Lung Lesion": r"nodule|mass\b",
    "Edema": r"edema",
    "Consolidation": r"consolidation",
    "Atelectasis": r"atelectasis",
    "Pneumothorax": r"pneumothorax",
    "Pleural Effusion": r"effusions?",
}
DENIED = (
    r"^no (?!significant)|negative for|is not seen"
    r"|has resolved|no longer visible|resolution of|complete clearing"
)
DOUBTED = r"possible|cannot be excluded|questionable|may represent|equivocal"
NORMAL = {
    "Cardiomegaly": r"heart size is normal|heart is not enlarged|silhouette within normal",
    "Enlarged Cardiomediastinum": r"mediastinal contours are normal|unremarkable mediastinum",
}


def read(text):
    """Finding -> set of codes that the sentences of ``text`` give it."""
    out = {finding: set() for finding in NAMED}
    for sentence in re.split(r"(?<=[.])\s+(?=[A-Z0-9])", text):
        low = sentence.lower()
        denied, doubted = re.search(DENIED, low), re.search(DOUBTED, low)
        for finding, pattern in NAMED.items():
            if re.search(pattern, low):
                out[finding].add(Label.ABSENT if denied else Label.UNCERTAIN if doubted else Label.PRESENT)
            if finding in NORMAL and re.search(NORMAL[finding], low):
                out[finding].add(Label.ABSENT)
    return out


@pytest.fixture(scope="module")
def dictated():
    """(film, report) of many studies in plain wording."""
    pairs = []
    plain = dict(slips=0.0, upper=0.0, short=0.0)
    for name, style in STYLES.items():
        rng = np.random.default_rng(0)
        hospital, before = invent_hospital(name, rng), None
        how = dataclasses.replace(style.dictation, **plain)
        for film in patients(style, 20, 3, 32):
            if film.image:
                continue
            if film.study == 0:
                person, before = invent_person(1, film.age, rng), None
            date = person.first_day + datetime.timedelta(days=film.day)
            pairs.append((film, write_report(film, before, date, "AB1", person, hospital, how, rng)))
            before = date
    return pairs


def test_findings_present_are_named_and_absent_ones_only_denied(dictated):
    named = denied = 0
    for film, report in dictated:
        told = read(f"{report.findings or ''} {report.impression or ''}")
        for finding, codes in told.items():
            truth = film.labels[finding]
            if truth == Label.ABSENT:
                assert codes <= {Label.ABSENT}, (finding, report)
                denied += len(codes)
            elif finding in film.severity and report.findings is not None:
                assert codes, (finding, report)
            if finding in film.severity:
                assert Label.ABSENT not in codes
                expected = Label.PRESENT if finding == "Enlarged Cardiomediastinum" else Label(truth)
                assert codes <= {expected, Label.UNCERTAIN} if truth == Label.UNCERTAIN else codes <= {expected}
                named += len(codes)
    assert named > 100 and denied > 100


def test_mentions_are_what_the_grammar_reads(dictated):
    for _, report in dictated:
        told = read(f"{report.findings or ''} {report.impression or ''}")
        assert tuple(report.mentions) == CHEXPERT
        for finding, codes in told.items():
            mention = Label(report.mentions[finding])
            if finding == "Enlarged Cardiomediastinum" and report.mentions["Cardiomegaly"] == Label.PRESENT:
                continue  # implied, not said
            assert codes == ({mention} if mention != Label.UNMENTIONED else set()), (finding, report)


def test_changes_are_worded(dictated):
    words = {
        "new": r"\bnew\b|interval development",
        "worsened": r"worsening|increase|progressed",
        "improved": r"improving|decrease|less than",
        "stable": r"unchanged|stable|similar|no significant change",
        "resolved": r"resolved|no longer|resolution|clearing",
    }
    seen = set()
    for _, report in dictated:
        for kind, pattern in words.items():
            if re.search(pattern, f"{report.findings} {report.impression}".lower()):
                seen.add(kind)
    assert seen == set(words)
    for film, report in dictated:
        told = f"{report.findings} {report.impression}".lower()
        for kind, pattern in words.items():
            if re.search(pattern, told):
                assert kind in film.change.values(), (kind, report)


def test_unmentioned_findings_are_silent_not_wrong(dictated):
    for film, report in dictated:
        for finding, code in report.mentions.items():
            if code in (Label.PRESENT, Label.ABSENT) and finding != "No Finding":
                truth = film.labels[finding]
                assert truth == code or truth == Label.UNCERTAIN, (finding, report)


def test_styles_and_noise_show():
    rng = np.random.default_rng(1)
    hospital, person = invent_hospital("x", rng), invent_person(1, 50, rng)
    film = next(f for f in patients(STYLES["south"], 20, 3, 32) if "Pneumothorax" in f.severity)
    date = datetime.date(2020, 2, 3)

    def text(**more):
        quiet = dict(upper=0.0, short=0.0, slips=0.0, impression_only=0.0, unheaded=0.0, addenda=0.0)
        how = build(Dictation, {**quiet, **more})
        return write_report(film, None, date, "AB1", person, hospital, how, np.random.default_rng(4)).text

    base = text()
    assert "FINDINGS: " in base and "IMPRESSION: " in base
    assert text(upper=1.0) == base.upper()
    assert "PTX" in text(short=1.0) and "PTX" not in base
    assert "FINDINGS" not in text(impression_only=1.0) and "IMPRESSION" not in text(unheaded=1.0)
    assert "FINDINGS:" not in text(headings="bare")
    assert "ADDENDUM" in text(addenda=1.0)
    assert text(lines="CRLF") == base.replace("\n", "\r\n") and "\n" not in text(lines="CR")
    slipped = text(slips=1.0)
    assert len(slipped) == len(base) and slipped != base and sorted(slipped) == sorted(base)


def test_contradictions_are_refused():
    with pytest.raises(ConfigError, match="exclude each other"):
        build(Dictation, {"impression_only": 0.6, "unheaded": 0.6})
    with pytest.raises(ConfigError, match=r"dictation\.upper"):
        build(Dictation, {"upper": 1.2})
