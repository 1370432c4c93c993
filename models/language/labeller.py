"""The finding labeller: a report in, the 14 CheXpert classes out.

    label_report("FINDINGS: Small left effusion. IMPRESSION: No pneumothorax.")["Pleural Effusion"]   # Label.PRESENT

Rules of the report, as in the CheXpert labeller (Irvin et al. 2019): of what several sentences say, present wins
over uncertain, uncertain over absent; what nobody speaks of is unmentioned; heart failure leaves an unmentioned
Cardiomegaly uncertain; No Finding is present if the report says that something is absent or normal and nothing
but Support Devices is present or uncertain, and no other abnormality stands in it. It reads findings, impression
and addenda, not what was asked or what the film was compared with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Literal, NamedTuple

from models.config import config
from models.language.mentions import Mention, Reading, read_sentence
from models.language.sections import Sections, split_report
from models.language.tokens import LONGEST, Sentence, sentences
from models.studies.schema import CHEXPERT, Label

NO_FINDING, DEVICES = "No Finding", "Support Devices"
PARENTS: Mapping[str, str] = {
    "Cardiomegaly": "Enlarged Cardiomediastinum",
    "Lung Lesion": "Lung Opacity",
    "Edema": "Lung Opacity",
    "Consolidation": "Lung Opacity",
    "Atelectasis": "Lung Opacity",
    "Pneumonia": "Consolidation",
}
"""Each class and the one it is a kind of, in the CheXpert tree."""

_STRENGTH = {Label.PRESENT: 3, Label.UNCERTAIN: 2, Label.ABSENT: 1}


@config
class Labelling:
    """How reports are labelled.

    Attributes:
        probable: what "probable", "likely", "suggestive of" and "suspicious for" count as.
        parents: whether a finding also asserts the classes it is a kind of (consolidation: a lung opacity).
            The CheXpert labeller does not.
    """

    probable: Literal["uncertain", "present"] = "uncertain"
    parents: bool = False


class Said(NamedTuple):
    """One sentence of a report and what it says.

    Attributes:
        section: ``findings``, ``impression`` or ``addendum``.
        sentence: its text and its place in that section.
        reading: its mentions.
    """

    section: str
    sentence: Sentence
    reading: Reading


@cache
def _default() -> Labelling:
    return Labelling()


def label_report(report: str | Sections, how: Labelling | None = None) -> dict[str, Label]:
    """The 14 classes of one report, in CheXpert order.

    Args:
        report: a whole report, with or without headings, or its sections.
        how: settings.
    """
    return merge((said.reading for said in read_report(report)), how)


def label_text(text: str | None, how: Labelling | None = None) -> dict[str, Label]:
    """The 14 classes of one section's text, in which no heading is looked for."""
    return merge((read_sentence(sentence.text) for sentence in sentences(text or "")), how)


def read_report(report: str | Sections) -> list[Said]:
    """Every sentence of the findings, the impression and the addenda, with what it says."""
    parts = split_report(report[:LONGEST]) if isinstance(report, str) else report
    return [
        Said(section, sentence, read_sentence(sentence.text))
        for section in ("findings", "impression", "addendum")
        for sentence in sentences(getattr(parts, section) or "")
    ]


def mention_label(mention: Mention, how: Labelling | None = None) -> Label:
    """Label of a mention under the settings."""
    raised = mention.probable and (how or _default()).probable == "present"
    return Label.PRESENT if raised else mention.label


def merge(readings: Iterable[Reading], how: Labelling | None = None) -> dict[str, Label]:
    """What sentences say together: the rules of the report."""
    how = how or _default()
    found: dict[str, Label] = {}
    well, other, failure = False, False, False
    for reading in readings:
        well |= reading.normal
        other |= reading.other
        for mention in reading.mentions:
            label = mention_label(mention, how)
            if _STRENGTH[label] > _STRENGTH.get(found.get(mention.finding), 0):
                found[mention.finding] = label
            if mention.finding == "Edema" and label is not Label.ABSENT:
                failure |= "failure" in reading.tokens[mention.start : mention.end]
    if failure:
        found.setdefault("Cardiomegaly", Label.UNCERTAIN)
    if how.parents:
        _raise_parents(found)
    labels = {name: found.get(name, Label.UNMENTIONED) for name in CHEXPERT}
    abnormal = any(label is not Label.ABSENT for name, label in found.items() if name != DEVICES)
    if (well or found) and not abnormal and not other and (well or found.keys() != {DEVICES}):
        labels[NO_FINDING] = Label.PRESENT
    return labels


def _raise_parents(found: dict[str, Label]) -> None:
    """A finding that is present or uncertain makes its kind at least that."""
    for child in ("Pneumonia", *PARENTS):  # Pneumonia first: its kind has a kind
        label, parent = found.get(child), PARENTS[child]
        if label in (Label.PRESENT, Label.UNCERTAIN) and _STRENGTH[label] > _STRENGTH.get(found.get(parent), 0):
            found[parent] = label
