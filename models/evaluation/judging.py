"""One way to judge whatever an objective trains: what it opens for held-out patients says by which protocol.

``Labelled`` films are judged by probabilities (``protocol``), ``ReportQuestions`` by answers (``textual``). Server and
site call these functions and nothing else, so that both judge alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from models.evaluation.diagnosis import probabilities
from models.evaluation.protocol import REPLICATES, evaluate, paired_difference
from models.evaluation.questions import ReportQuestions
from models.evaluation.results import Result
from models.evaluation.textual import answers, no_instruction, text_difference, text_results
from models.model import CxrModel
from models.objectives import Objective


def is_text(view: Any) -> bool:
    """Whether ``view`` asks questions about reports, which have no findings and no DeLong test."""
    return isinstance(view, ReportQuestions)


def headline(view: Any) -> str:
    """The metric that one number is told by; its finding is ``macro``."""
    return "recall_at_1" if is_text(view) else "auroc"


def scores(model: CxrModel, objective: Objective, view: Any, device: torch.device, batch_size: int = 128) -> np.ndarray:
    """What ``model`` makes of every item of ``view``: float32 [N,F] probabilities, or what each question earns."""
    if not is_text(view):
        return probabilities(model, objective, view, device, batch_size)
    model.to(device).eval()
    return text_answers(model, objective, view)


def text_answers(model: CxrModel, objective: Objective | None, view: ReportQuestions) -> np.ndarray:
    """Answers of a model's text tower, with the instructions that ``objective`` trains with, if any."""
    return answers(
        lambda texts, instruction: model.text.encode(texts, instruction).numpy(),
        view,
        getattr(objective, "instructions", no_instruction),
    )


def results(
    found: np.ndarray,
    view: Any,
    findings: tuple[str, ...],
    chosen: np.ndarray | None = None,
    strata: np.ndarray | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    min_cell: int = 0,
) -> list[Result]:
    """The protocol on scores [N,F] (or [M,N,F] for a mean over models), on all items or on those ``chosen``.

    strata: site of each item of the whole view; only films are compared within sites.
    """
    if is_text(view):
        return text_results(found, view, chosen, replicates, seed, min_cell)
    rows = np.arange(len(view)) if chosen is None else chosen
    within = None if strata is None else strata[rows]
    labels, patients = view.labels[rows], view.patients[rows]
    return evaluate(found[..., rows, :], labels, patients, findings, within, replicates, seed, min_cell)


def difference(
    a: np.ndarray,
    b: np.ndarray,
    view: Any,
    findings: tuple[str, ...],
    chosen: np.ndarray | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    min_cell: int = 0,
) -> list[Result]:
    """The headline metric of ``a`` minus that of ``b`` on equal resamples."""
    if is_text(view):
        rows = text_difference(a, b, view, chosen, replicates, seed, min_cell)
        return [row for row in rows if row.metric == "recall_at_1_difference"]
    rows = np.arange(len(view)) if chosen is None else chosen
    labels, patients = view.labels[rows], view.patients[rows]
    return paired_difference(
        a[..., rows, :], b[..., rows, :], labels, patients, findings, None, replicates, seed, min_cell
    )
