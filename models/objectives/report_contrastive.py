"""Supervised contrast of reports with hard negatives (stage 3 of LLM2Vec, arXiv 2404.05961; LLM2VEC4CXR, 2509.15234).

A query is to find its own document among all documents of the batch and all hard negatives, texts that are right but
for one error. Lessons are made on the site from its own reports, by rule (``_report_triples``); none leaves it. A batch
holds one task, or tasks would be told apart by form alone. Texts that equal a right answer are no negatives.

    objective:
      name: report_contrastive
      tasks:
        - {name: style, instruction: Retrieve semantically similar sentences, both_sides: true}
        - {name: summary, instruction: Summarize the given findings}
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from models.config import ConfigError, config
from models.language.rewriting import house, houses
from models.objectives import Order, Schedule
from models.objectives._contrast import contrast, false_negatives
from models.objectives._report_triples import ReportTriples, TaskName, TripleBatch, homogeneous
from models.objectives._reports import MIXES_REPORTS, OnReports, TextPart
from models.studies.store import Store


@config
class Task:
    """A kind of lesson. The instruction stands before the query; before the documents too where both are of one kind."""

    name: TaskName
    instruction: str = ""
    both_sides: bool = False


TASKS = (
    Task(name="style", instruction="Retrieve semantically similar sentences", both_sides=True),
    Task(name="summary", instruction="Summarize the given findings"),
    Task(name="labels", instruction="Classify the given report"),
)


@config
class Config:
    """scale: of the cosines (50, a temperature of 0.02). negatives: whether each lesson brings a text with one error.
    houses: the styles that ``style`` rewrites into; empty for all that are shipped. seed: of the lessons."""

    name: Literal["report_contrastive"] = "report_contrastive"
    trains: tuple[TextPart, ...] = ("text_lora",)
    tasks: tuple[Task, ...] = TASKS
    negatives: bool = True
    houses: tuple[str, ...] = ()
    scale: float = 50.0
    seed: int = 0
    findings: ClassVar[tuple[str, ...]] = ()

    def check(self) -> None:
        names = [task.name for task in self.tasks]
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"tasks {names}: at least one, and none twice")
        if not self.trains:
            raise ConfigError("trains: empty; name at least one part of the text tower")
        if not self.scale > 0:
            raise ConfigError(f"scale {self.scale}: must be positive")
        for name in self.houses:
            house(name)

    def build(self) -> ReportContrastive:
        return ReportContrastive(self)


class ReportContrastive(OnReports):
    """The objective; reads ``ReportTriples``."""

    view: ClassVar[type] = ReportTriples
    no_privacy: ClassVar[str] = MIXES_REPORTS

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        self._tasks = {task.name: task for task in cfg.tasks}

    def open(self, store: Store, rows: Any) -> ReportTriples:
        styles = {name: house(name) for name in self.cfg.houses or houses()}
        return ReportTriples(store, rows, tuple(self._tasks), styles, self.cfg.negatives, self.cfg.seed)

    def instructions(self, task: str) -> tuple[str | None, str | None]:
        """Of the queries and of the documents of a held-out task: those of the lesson that is nearest to it."""
        lesson = self._tasks.get("style" if task == "abbreviated" else task)
        if lesson is None:
            return None, None
        return lesson.instruction, lesson.instruction if lesson.both_sides else None

    def order(self, view: ReportTriples, local: Any, schedule: Schedule, generator: torch.Generator) -> Order:
        """Batches of one task each."""
        steps = local.steps_for(len(view))
        return Order(steps, list(enumerate(homogeneous(view.tasks, local.batch_size, steps, generator))))

    def step(self, model: nn.Module, batch: TripleBatch, schedule: Schedule) -> dict[str, Tensor]:
        task, text = self._tasks[batch.task], model.text
        hard = [negative for negative in batch.negatives if negative is not None]
        documents = [*batch.positives, *hard]
        asked = text.tokens.rows(batch.queries, task.instruction)
        given = text.tokens.rows(documents, task.instruction if task.both_sides else None)
        vectors = text.embed_rows([*asked, *given])
        queries, documents_MD = vectors.split([len(asked), len(given)])
        excluded = false_negatives(batch.queries, batch.positives, hard).to(vectors.device)
        return {f"{batch.task}_loss": contrast(queries, documents_MD, excluded, self.cfg.scale)}
