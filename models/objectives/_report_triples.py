"""Query, positive and hard negative from a site's own reports, made on the site by rule: the lessons of
``report_contrastive``.

- ``style``: a section, and the same section as another house would write it; in either direction by lot. The negative
  is the right one's twin with one error.
- ``summary``: the findings, and the impression of the same report. The negative is the impression with one error.
- ``labels``: the report, and the classes that it speaks of as a sentence. The negative has one class turned round.

The same report and seed make the same lesson, whatever store it stands in.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.language.canonical import canonical
from models.language.errors import make_errors
from models.language.labeller import NO_FINDING, label_report
from models.language.rewriting import House, rewrite
from models.language.sections import Sections
from models.randomness import stream_seed
from models.studies.schema import Label
from models.studies.store import Store
from models.studies.views import Batch, Reports, View, ViewError

TaskName = Literal["style", "summary", "labels"]


class Triple(NamedTuple):
    """One lesson. negative: None where none could be made."""

    query: str
    positive: str
    negative: str | None


@dataclass(frozen=True)
class TripleBatch(Batch):
    """items: int64 [B], numbers of the items in the view; task: the one that all belong to; the texts of B lessons."""

    items: Tensor
    task: str
    queries: tuple[str, ...]
    positives: tuple[str, ...]
    negatives: tuple[str | None, ...]


class ReportTriples(View):
    """Lessons of several tasks, task by task.

    Attributes:
        triples: all lessons. tasks: int64 [n], number of each one's task in ``names``.
        rows, patients: of the study each was made from. labels: int8 [n, 0].
    """

    def __init__(
        self,
        store: Store,
        rows: np.ndarray | None,
        names: Sequence[TaskName],
        houses: Mapping[str, House],
        negatives: bool,
        seed: int,
    ) -> None:
        reports = Reports(store, rows)
        self.store = store
        self.names = tuple(names)
        maker = _Maker(dict(houses), negatives, seed)
        self.triples: list[Triple] = []
        items, tasks = [], []
        for number, name in enumerate(names):
            for item, (findings, impression) in enumerate(reports.parts):
                for triple in getattr(maker, name)(Sections(findings=findings, impression=impression)):
                    self.triples.append(triple)
                    items.append(item)
                    tasks.append(number)
        if not self.triples:
            raise ViewError(
                f"none of the {len(reports)} reports gives a lesson for {', '.join(names)}; 'summary' needs findings and "
                f"impression, 'style' words to rewrite, 'labels' a CheXpert class"
            )
        self.tasks = np.array(tasks, dtype=np.int64)
        self.rows, self.patients = reports.rows[items], reports.patients[items]
        self.labels = np.zeros((len(self.triples), 0), dtype=np.int8)

    def batch(self, indices: Tensor | np.ndarray | Sequence[int]) -> TripleBatch:
        """``TripleBatch`` of the items at ``indices``.

        Raises:
            ValueError: items of several tasks, which would be told apart by their form alone.
        """
        index = indices.numpy() if isinstance(indices, Tensor) else np.asarray(indices, dtype=np.int64)
        tasks = np.unique(self.tasks[index])
        if len(tasks) != 1:
            raise ValueError(f"a batch of tasks {', '.join(self.names[t] for t in tasks)}: one task a batch")
        queries, positives, negatives = zip(*(self.triples[i] for i in index))
        return TripleBatch(torch.from_numpy(index), self.names[tasks[0]], queries, positives, negatives)


class _Maker:
    """One method a task: the lessons of one report."""

    def __init__(self, houses: dict[str, House], negatives: bool, seed: int) -> None:
        self.houses, self.negatives, self.seed = houses, negatives, seed

    def style(self, report: Sections) -> Iterator[Triple]:
        for name in ("findings", "impression"):
            text = getattr(report, name)
            if not text:
                continue
            seed = stream_seed(self.seed, "style", name, canonical(text))
            rng = random.Random(seed)
            house = replace(self.houses[rng.choice(sorted(self.houses))], sections="both", headings="none")
            other = lambda words, house=house, name=name, seed=seed: _section(words, house, name, seed)
            error = self._error(Sections(**{name: text}), seed)
            right, wrong = (error.original, error.text) if error else (text, None)
            restyled = other(right)
            if canonical(restyled) == canonical(text):
                continue
            if rng.random() < 0.5:
                yield Triple(restyled, right, wrong)
            else:
                yield Triple(text, restyled, other(wrong) if wrong else None)

    def summary(self, report: Sections) -> Iterator[Triple]:
        if report.findings and report.impression:
            seed = stream_seed(self.seed, "summary", canonical(f"{report.findings} {report.impression}"))
            error = self._error(report, seed)
            if error:
                yield Triple(report.findings, error.original, error.text)
            else:
                yield Triple(report.findings, report.impression, None)

    def labels(self, report: Sections) -> Iterator[Triple]:
        said = {name: label for name, label in label_report(report).items() if label is not Label.UNMENTIONED}
        if as_sentence(said):
            text = " ".join(part for part in (report.findings, report.impression) if part)
            wrong = self._turned(said, stream_seed(self.seed, "labels", canonical(text)))
            yield Triple(text, as_sentence(said), as_sentence(wrong) if wrong else None)

    def _error(self, report: Sections, seed: int) -> Any:
        errors = make_errors(report, seed, count=1) if self.negatives else []
        return errors[0] if errors else None

    def _turned(self, said: Mapping[str, Label], seed: int) -> dict[str, Label] | None:
        plain = sorted(n for n, label in said.items() if n != NO_FINDING and label in (Label.PRESENT, Label.ABSENT))
        if not self.negatives or not plain:
            return None
        name = random.Random(seed).choice(plain)
        wrong = {**said, name: Label.ABSENT if said[name] is Label.PRESENT else Label.PRESENT}
        if wrong[name] is Label.PRESENT:
            wrong.pop(NO_FINDING, None)
        return wrong


def _section(text: str, house: House, name: str, seed: int) -> str:
    return getattr(rewrite(Sections(**{name: text}), house, seed).sections, name) or text


def as_sentence(said: Mapping[str, Label]) -> str:
    """What labels say, in words and in a fixed order: those present, possible, and absent."""
    words = {Label.PRESENT: "There is", Label.UNCERTAIN: "Possibly", Label.ABSENT: "There is no"}
    parts = ["Nothing abnormal."] if said.get(NO_FINDING) is Label.PRESENT else []
    for label, opening in words.items():
        names = sorted(name.lower() for name, given in said.items() if given is label and name != NO_FINDING)
        if names:
            parts.append(f"{opening} {', '.join(names)}.")
    return " ".join(parts)


def homogeneous(tasks: np.ndarray, batch_size: int, steps: int, generator: torch.Generator) -> list[Tensor]:
    """Items of each of ``steps`` batches, one task a batch, in random order; passes over all follow one another.

    What does not fill a batch is dropped in that pass, unless it is all that a task has; one lesson by itself has
    nothing to be told from, and is no batch.
    """
    found: list[Tensor] = []
    while len(found) < steps:
        turn: list[Tensor] = []
        for task in np.unique(tasks):
            items = torch.from_numpy(np.flatnonzero(tasks == task))
            items = items[torch.randperm(len(items), generator=generator)]
            whole = [part for part in items.split(batch_size) if len(part) == batch_size]
            turn += whole or ([items] if len(items) > 1 else [])
        if not turn:
            raise ViewError("no task has two lessons; a contrast needs at least two reports")
        found += [turn[i] for i in torch.randperm(len(turn), generator=generator)]
    return found[:steps]
