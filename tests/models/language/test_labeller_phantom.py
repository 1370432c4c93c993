"""The labeller on reports whose meaning is known because they were dictated by rule."""

import datetime
from collections import Counter

import numpy as np
import pytest

from client.ingest.phantom.patients import patients
from client.ingest.phantom.people import invent_hospital, invent_person
from client.ingest.phantom.reports import write_report
from client.ingest.phantom.style import STYLES
from models.language.change import courses
from models.language.labeller import Labelling, label_report
from models.studies.schema import CHEXPERT, Label


@pytest.fixture(scope="module")
def dictated():
    """(film, report) of every house, with its slips, capitals and abbreviations."""
    pairs = []
    for name, style in STYLES.items():
        rng = np.random.default_rng(11)
        hospital, before = invent_hospital(name, rng), None
        for film in patients(style, 25, 5, 32):
            if film.image:
                continue
            if film.study == 0:
                person, before = invent_person(1, film.age, rng), None
            date = person.first_day + datetime.timedelta(days=film.day)
            pairs.append((film, write_report(film, before, date, "AB1", person, hospital, style.dictation, rng)))
            before = date
    return pairs


def test_labels_are_what_was_dictated(dictated):
    """No Finding apart: the phantom says it only where its impression does."""
    assert len(dictated) > 100 and len({type(r.text) for _, r in dictated}) == 1
    wrong, cells = Counter(), 0
    for _, report in dictated:
        labels = label_report(report.text, Labelling(parents=True))
        for finding in CHEXPERT[1:]:
            cells += 1
            if labels[finding] != report.mentions[finding]:
                wrong[finding, Label(report.mentions[finding]).name, labels[finding].name] += 1
    assert sum(wrong.values()) <= 0.003 * cells, wrong


def test_courses_are_what_was_dictated(dictated):
    told = wrong = 0
    for film, report in dictated:
        for finding, course in courses(report.text):
            if finding in film.change:
                told += 1
                wrong += course != film.change[finding]
            else:  # a course is invented only for classes that the phantom has no course for
                assert finding in ("Lung Opacity", "Support Devices"), (finding, course, report.text)
    assert told > 60 and wrong <= 0.01 * told
