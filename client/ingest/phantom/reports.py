"""A noisy report of one phantom study in the style of its site, with what it says of each finding."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

import numpy as np

from client.ingest.phantom import wording
from client.ingest.phantom.findings import Lesion
from client.ingest.phantom.habits import Dictation
from client.ingest.phantom.patients import PhantomStudy
from client.ingest.phantom.people import Hospital, Person
from client.ingest.phantom.style import PATHOLOGIES
from models.studies.schema import CHEXPERT, Label

_SAID_IF_ABSENT = {
    "Pleural Effusion": 0.9,
    "Pneumothorax": 0.9,
    "Consolidation": 0.8,
    "Cardiomegaly": 0.8,
    "Edema": 0.5,
    "Enlarged Cardiomediastinum": 0.4,
    "Lung Lesion": 0.25,
    "Atelectasis": 0.1,
}
"""How often radiologists deny a finding that is not there."""

_LISTED = ("Consolidation", "Edema", "Pleural Effusion", "Pneumothorax")


@dataclass(frozen=True)
class PhantomReport:
    """A report and its meaning.

    Attributes:
        text: as it is filed, with the site's line ends, headings and slips.
        findings, impression: the two sections before any slip or abbreviation; ``None`` where there is
            none. A report without headings is all findings.
        mentions: the 14 CheXpert classes as this report speaks of them (``Label`` codes); what it passes
            over is UNMENTIONED. It differs from the film's labels by silence, never by contradiction.
        identifiers: every identifying string in ``text``, as written there.
    """

    text: str
    findings: str | None
    impression: str | None
    mentions: dict[str, int]
    identifiers: tuple[str, ...]


def write_report(
    film: PhantomStudy,
    prior: datetime.date | None,
    date: datetime.date,
    accession: str,
    person: Person,
    hospital: Hospital,
    style: Dictation,
    rng: np.random.Generator,
) -> PhantomReport:
    """Dictate the report of a study: ``film`` is its frontal, ``prior`` the date of the study before."""
    compares = prior is not None and rng.random() < style.compares
    kind = rng.random()
    impression_only = kind < style.impression_only
    unheaded = not impression_only and kind < style.impression_only + style.unheaded
    described, said = _describe(film, compares, rng)
    concluded, said_short = _conclude(film, compares, rng)
    mentions = dict(said_short) if impression_only else _merge(said, {} if unheaded else said_short)
    findings = None if impression_only else " ".join(described)
    impression = None if unheaded else " ".join(concluded)
    blocks: list[tuple[str, str]] = []
    if impression_only:
        blocks.append(("IMPRESSION", impression or ""))
    elif unheaded:
        blocks.append(("", findings or ""))
    else:
        blocks.append(("EXAM", _exam(film)))
        blocks.append(("INDICATION", _pick(wording.INDICATIONS, rng)))
        if rng.random() < 0.5:
            blocks.append(("TECHNIQUE", f"Single {film.view} view of the chest."))
        blocks.append(("COMPARISON", f"{prior:%d/%m/%Y}." if compares and prior else "None."))
        blocks.append(("FINDINGS", findings or ""))
        blocks.append(("IMPRESSION", _numbered(concluded) if rng.random() < 0.3 else impression or ""))
    doctor = _pick(hospital.radiologists, rng)
    header, footer = _around(person, accession, date, doctor, unheaded, rng)
    if rng.random() < style.addenda:
        caller = _pick(hospital.referrers, rng)
        blocks.append(("ADDENDUM", f"Discussed with Dr. {caller} by telephone, {person.phone}."))
    text = "\n".join([*header, *_laid_out(blocks, style, rng), *footer])
    if rng.random() < style.short:
        text = _shorten(text)
    if rng.random() < style.slips:
        text = _slip(text, rng)
    if rng.random() < style.upper:
        text = text.upper()
    secrets = [
        person.family,
        person.given,
        person.number,
        person.phone,
        accession,
        doctor,
        *hospital.referrers,
    ]
    secrets += [
        hospital.name,
        f"{date:%d/%m/%Y}",
        f"{date:%Y-%m-%d}",
        *([f"{prior:%d/%m/%Y}"] if prior else []),
    ]
    planted = tuple(sorted({s for s in secrets for s in (s, s.upper()) if s in text}))
    text = text.replace("\n", {"LF": "\n", "CRLF": "\r\n", "CR": "\r"}[style.lines])
    return PhantomReport(text, findings, impression, mentions, planted)


def _describe(film: PhantomStudy, compares: bool, rng: np.random.Generator) -> tuple[list[str], dict[str, int]]:
    """Sentences of the findings section, and what they say."""
    said: dict[str, int] = {}
    lesions = {x.finding: x for x in film.lesions}
    sentences = [_sentence(lesions[f], film, compares, said, rng) for f in PATHOLOGIES if f in lesions]
    if compares:
        sentences += _gone(film, said, rng)
    quiet = [f for f in PATHOLOGIES if film.labels[f] == Label.ABSENT and f not in said]
    denied = [f for f in quiet if rng.random() < _SAID_IF_ABSENT[f]]
    sentences += _denials(denied, said, rng)
    if film.labels["No Finding"] == Label.PRESENT and rng.random() < 0.7:
        sentences.insert(0, _pick(wording.CLEAR, rng))
    for device in film.devices:
        sentences.append(_pick(wording.DEVICES[device], rng))
    if not film.devices and rng.random() < 0.15:
        sentences.append(_pick(wording.NO_DEVICES, rng))
        said["Support Devices"] = int(Label.ABSENT)
    if film.devices:
        said["Support Devices"] = int(Label.PRESENT)
    if rng.random() < 0.4:
        sentences.append(_pick(wording.BONES, rng))
    return sentences, _implied(said, film)


def _conclude(film: PhantomStudy, compares: bool, rng: np.random.Generator) -> tuple[list[str], dict[str, int]]:
    """Sentences of the impression: the worst first, at most four, or that there is nothing."""
    said: dict[str, int] = {}
    worst = sorted(film.lesions, key=lambda x: -x.severity)[:4]
    sentences = [_sentence(x, film, compares, said, rng) for x in worst]
    if not worst:
        sentences = [_pick(wording.NOTHING_ACUTE, rng)]
        said["No Finding"] = int(Label.PRESENT)
        if compares:
            sentences += _gone(film, said, rng)
    return sentences, _implied(said, film)


def _sentence(
    lesion: Lesion, film: PhantomStudy, compares: bool, said: dict[str, int], rng: np.random.Generator
) -> str:
    noun, plural = wording.phrase(lesion, rng)
    code = film.labels[lesion.finding]
    if lesion.finding == "Enlarged Cardiomediastinum" and film.severity.get(lesion.finding, 0) > 0:
        code = max(code, int(Label.UNCERTAIN))
    said[lesion.finding] = code
    if code == Label.UNCERTAIN:
        return _fill(_pick(wording.UNCERTAIN, rng), noun)
    change = film.change.get(lesion.finding) if compares else None
    if change:
        return _fill(_pick(wording.CHANGED[change], rng), noun)
    return _fill(_pick(wording.PLURAL if plural else wording.PRESENT, rng), noun)


def _gone(film: PhantomStudy, said: dict[str, int], rng: np.random.Generator) -> list[str]:
    """What was there before and is not any more."""
    sentences = []
    for finding, change in film.change.items():
        if change == "resolved" and film.labels[finding] == Label.ABSENT:
            term = wording.TERMS[finding][0]
            sentences.append(_fill(_pick(wording.CHANGED["resolved"], rng), term))
            said[finding] = int(Label.ABSENT)
    return sentences


def _denials(denied: list[str], said: dict[str, int], rng: np.random.Generator) -> list[str]:
    """Negative statements, some of them joined into one."""
    said.update({f: int(Label.ABSENT) for f in denied})
    sentences = []
    joined = [f for f in _LISTED if f in denied]
    if len(joined) > 1 and rng.random() < 0.6:
        terms = [wording.TERMS[f][0] for f in joined]
        sentences.append(f"No {', '.join(terms[:-1])} or {terms[-1]}.")
        denied = [f for f in denied if f not in joined]
    for finding in denied:
        if finding in wording.NORMAL and rng.random() < 0.8:
            sentences.append(_pick(wording.NORMAL[finding], rng))
        else:
            sentences.append(_fill(_pick(wording.ABSENT, rng), _pick(wording.TERMS[finding], rng)))
    return sentences


def _implied(said: dict[str, int], film: PhantomStudy) -> dict[str, int]:
    """All 14 classes: a named opacity is a Lung Opacity, Cardiomegaly an Enlarged Cardiomediastinum."""
    out = {f: said.get(f, int(Label.UNMENTIONED)) for f in CHEXPERT}
    opacities = [out[f] for f in ("Edema", "Consolidation", "Lung Lesion", "Atelectasis")]
    for code in (Label.PRESENT, Label.UNCERTAIN):
        if code in opacities:
            out["Lung Opacity"] = int(code)
            break
    if out["Cardiomegaly"] == Label.PRESENT:
        out["Enlarged Cardiomediastinum"] = int(Label.PRESENT)
    return out


def _merge(first: dict[str, int], second: dict[str, int]) -> dict[str, int]:
    """What two sections say together; they never contradict each other, one may be silent."""
    silent = int(Label.UNMENTIONED)
    return {f: first[f] if first[f] != silent else second.get(f, silent) for f in first}


def _fill(template: str, noun: str) -> str:
    up = noun[:1].upper() + noun[1:]
    return template.format(np=noun, Np=up, term=noun, Term=up)


def _exam(film: PhantomStudy) -> str:
    return {"PA": "Chest radiograph, PA view.", "AP": "Portable chest radiograph, AP view."}[film.view]


def _numbered(sentences: list[str]) -> str:
    return "\n" + "\n".join(f"{k}. {s}" for k, s in enumerate(sentences, start=1))


def _around(
    person: Person, accession: str, date: datetime.date, doctor: str, plain: bool, rng: np.random.Generator
) -> tuple[list[str], list[str]]:
    """Lines before and after the report proper, full of identifiers."""
    header, footer = [], []
    if not plain and rng.random() < 0.5:
        header.append(f"Patient: {person.family}, {person.given}   MRN: {person.number}")
        header.append(f"Accession: {accession}   Date of exam: {date:%d/%m/%Y}")
    if rng.random() < 0.5:
        footer.append(f"Electronically signed by Dr. {doctor} on {date:%Y-%m-%d}")
    return header, footer


def _laid_out(blocks: list[tuple[str, str]], style: Dictation, rng: np.random.Generator) -> list[str]:
    lines = []
    for name, body in blocks:
        bare = style.headings == "bare" or (style.headings == "mixed" and rng.random() < 0.5)
        if not name:
            lines += [body, ""]
        elif bare:
            lines += [name if rng.random() < 0.5 else name.capitalize(), body.lstrip("\n"), ""]
        else:
            lines += [f"{name}: {body}", ""]
    return lines


def _shorten(text: str) -> str:
    for long, short in wording.SHORT:
        text = re.sub(rf"\b{re.escape(long)}\b", short, text, flags=re.IGNORECASE)
    return text


def _slip(text: str, rng: np.random.Generator) -> str:
    """Exchange two letters within one longer word."""
    places = [m for m in re.finditer(r"\b[a-z]{7,}\b", text)]
    if not places:
        return text
    at = places[int(rng.integers(len(places)))]
    k = at.start() + int(rng.integers(2, len(at.group()) - 2))
    return text[:k] + text[k + 1] + text[k] + text[k + 2 :]


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
