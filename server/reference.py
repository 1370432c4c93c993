"""Every later round against the model at the end of one phase, on the same images, by DeLong's test."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from models.checkpoint import load, save
from models.evaluation.results import Result
from server.folder import RunFolder
from server.judge import Judge
from strategies.plan import Phase, RunConfig

FILE = "reference.safetensors"
"""Scores of the reference models on the shared patients, by cohort, in the run's folder: for a resumed run."""


class Reference:
    """The scores of each cohort's model at the end of phase ``plan.evaluation.reference``."""

    def __init__(self, plan: RunConfig, folder: RunFolder) -> None:
        self.phase, self.path = plan.evaluation.reference, folder.path / FILE
        self._order = [p.name for p in plan.phases]
        self._scores: dict[str, np.ndarray] = {}

    def keep(self, phase: Phase, number: int, scores: Mapping[str, np.ndarray]) -> None:
        """Take ``scores`` by cohort if this is the reference phase's last round."""
        if phase.name == self.phase and number == phase.rounds:
            self._scores = dict(scores)
            save(self.path, {name: torch.from_numpy(found) for name, found in scores.items()})

    def rows(self, judge: Judge, cohort: str, scores: np.ndarray, phase: Phase) -> list[Result]:
        """DeLong's rows of a cohort's scores; with the gain over the reference once that is there."""
        if self.phase is None:
            return []
        if not self._scores and self._order.index(phase.name) > self._order.index(self.phase):
            self._scores = {name: found.numpy() for name, found in load(self.path).items()}
        return judge.delong(scores, phase, self._scores.get(cohort))
