"""What a text tower is asked about reports it has not seen: which text of a bank is mine, and which one is right.

- ``abbreviated``: the sentence of a report that short forms change most, in telegram style; the same sentence written out
  is to be found. (Whole findings keep so many words that any encoder finds them.)
- ``summary``: the findings; the impression of the same report is to be found.
- the choice (MC4): the findings; the impression among itself and three with one error each, in wordings that training
  never uses.

Questions are made by rule from the reports alone: the same reports give the same questions, whatever model is asked,
whatever it was trained with and wherever it is judged.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from models.evaluation.metrics import Ints
from models.language.canonical import canonical, canonical_keys
from models.language.errors import make_errors
from models.language.labeller import read_report
from models.language.rewriting import SORTS, House, restyled
from models.language.sections import Sections
from models.randomness import stream_seed
from models.studies.store import Store
from models.studies.views import Reports, View, ViewError

TaskName = Literal["abbreviated", "summary"]
TASKS: tuple[TaskName, ...] = ("abbreviated", "summary")
WRONG = 3
SEED = 20_250_917
"""Of the errors and their order. Fixed: another seed would be another examination."""

_LONG = House(expand=True)
_SHORT = House(abbreviate=SORTS, telegraphic=True)

Parts = Sequence[tuple[str | None, str | None]]


@dataclass
class Search:
    """Find each query's answer among all answers. items: number of the report of each.

    keys: int64 [Q], equal for answers that are right for the same queries: equal texts and, where two sentences have one
    short form, all that it stands for.
    """

    queries: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    items: list[int] = field(default_factory=list)
    shared: bool = False

    def add(self, query: str, answer: str, item: int) -> None:
        self.queries.append(query)
        self.answers.append(answer)
        self.items.append(item)

    @property
    def keys(self) -> Ints:
        own = canonical_keys(self.answers)
        if not self.shared:
            return own
        root: dict[int, int] = {}

        def find(key: int) -> int:
            while root.setdefault(key, key) != key:
                root[key] = key = root[root[key]]
            return key

        # A query's hash is set apart from an answer's by one bit, which the hash is shortened by.
        for query, answer in zip(canonical_keys(self.queries).tolist(), own.tolist()):
            root[find(query >> 1 << 1 | 1)] = find(answer >> 1 << 1)
        return np.array([find(answer >> 1 << 1) for answer in own.tolist()], dtype=np.int64)


@dataclass
class Choice:
    """Find the right text among it and ``WRONG`` with one error. wrong, categories: [Q][WRONG]; left_out: reports with
    findings and impression that did not offer so many errors."""

    queries: list[str] = field(default_factory=list)
    right: list[str] = field(default_factory=list)
    wrong: list[tuple[str, ...]] = field(default_factory=list)
    categories: list[tuple[str, ...]] = field(default_factory=list)
    items: list[int] = field(default_factory=list)
    left_out: int = 0


def make_search(parts: Parts, task: TaskName) -> Search:
    """Questions of ``task`` from (findings, impression) of each report; a report that offers none is left out."""
    found = Search(shared=task == "abbreviated")
    for item, (findings, impression) in enumerate(parts):
        if task == "summary":
            if findings and impression:
                found.add(findings, impression, item)
        else:
            pair = _most_abbreviated(Sections(findings=findings, impression=impression))
            if pair:
                found.add(*pair, item)
    return found


def _most_abbreviated(report: Sections) -> tuple[str, str] | None:
    """(short, long) of the sentence of which short forms change the largest share of words; the first of equals."""
    best, most = None, 0.0
    for said in read_report(report):
        long = restyled(said.sentence.text, _LONG, random.Random(SEED))
        short = restyled(long, _SHORT, random.Random(SEED))
        words = {word.strip(".,;") for word in short.lower().split()}
        new = len(words - {word.strip(".,;") for word in long.lower().split()})
        if words and new / len(words) > most:
            best, most = (short, long), new / len(words)
    return best


def make_choices(parts: Parts) -> Choice:
    """MC4 questions from (findings, impression) of each report that has both."""
    found = Choice()
    for item, (findings, impression) in enumerate(parts):
        if not (findings and impression):
            continue
        seed = stream_seed(SEED, canonical(f"{findings} {impression}"))
        errors = make_errors(Sections(findings=findings, impression=impression), seed, WRONG, "test")
        # Sections may be written down in other blanks; the right one is written as the wrong ones are.
        if len(errors) < WRONG or canonical(errors[0].original) in {canonical(e.text) for e in errors}:
            found.left_out += 1
            continue
        found.queries.append(findings)
        found.right.append(errors[0].original)
        found.wrong.append(tuple(e.text for e in errors))
        found.categories.append(tuple(e.category for e in errors))
        found.items.append(item)
    return found


class ReportQuestions(View):
    """The questions that a store's reports give, ``TASKS`` first and then the choices.

    Attributes:
        searches: by task. choice: MC4. texts, parts: of each report, as in ``Reports``.
        item_rows, item_patients: of each report.
        tasks: of each question, its number in ``TASKS``, or ``len(TASKS)`` for a choice; int64 [Q].
        rows, patients: of each question's report. labels: int8 [Q, 0].
    """

    def __init__(self, store: Store, rows: np.ndarray | None = None) -> None:
        reports = Reports(store, rows)
        self.store = store
        self.texts, self.parts = reports.texts, reports.parts
        self.item_rows, self.item_patients = reports.rows, reports.patients
        self.searches = {task: make_search(reports.parts, task) for task in TASKS}
        self.choice = make_choices(reports.parts)
        items = [*(s.items for s in self.searches.values()), self.choice.items]
        self.tasks: Ints = np.repeat(np.arange(len(items)), [len(part) for part in items])
        index = np.concatenate([np.asarray(part, dtype=np.int64) for part in items])
        if not len(index):
            raise ViewError(
                f"none of the {len(reports)} held-out reports gives a question; 'summary' and the choice need findings "
                f"and impression, 'abbreviated' words that have a short form"
            )
        self.rows, self.patients = reports.rows[index], reports.patients[index]
        self.labels = np.zeros((len(index), 0), dtype=np.int8)
