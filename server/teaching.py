"""The server's own lessons: after each round it may train the federation's model on labelled films that it holds itself.

For federations whose hospitals have films and the coordinator has the labels. The loop is the sites' own; only what it
trains is added to the cohort's model.
"""

from __future__ import annotations

import numpy as np
import torch

from models.loop import Trained, train
from models.model import CxrModel, furnish
from models.objectives import Objective
from models.studies.store import Store
from models.studies.views import ViewError
from server.cohort import Cohort
from strategies.plan import Phase, RunConfig


class Lessons:
    """Labelled films at the server: ``rows`` of ``store``."""

    def __init__(self, plan: RunConfig, store: Store, rows: np.ndarray) -> None:
        self.plan, self.store, self.rows = plan, store, rows
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model: CxrModel | None = None

    def why_not(self, phase: Phase) -> str | None:
        """Why the server cannot train in ``phase``; None if it can."""
        try:
            self._open(phase)
        except ViewError as error:
            return str(error).split(";")[0]
        return None

    def _open(self, phase: Phase):
        objective = phase.at_server().build()
        return objective, objective.open(self.store, self.rows)

    def teach(self, cohort: Cohort, phase: Phase, number: int) -> Trained:
        """One lesson after round ``number``: ``cohort``'s tensors change in place.

        Raises:
            NonFiniteLoss: the lesson diverged; the cohort's tensors are as they were.
        """
        objective, view = self._open(phase)
        model = self._trainee(objective)
        cohort.into(model)
        done = train(
            model,
            objective,
            view,
            phase.server,
            round=number,
            rounds=phase.rounds,
            seed=self.plan.seed,
            names=(phase.name, number, "server"),
            device=self.device,
            min_cell=self.plan.evaluation.min_cell,
        )
        cohort.tensors |= {name: value.cpu().clone() for name, value in model.state(objective.trains).items()}
        return done

    def _trainee(self, objective: Objective) -> CxrModel:
        if self._model is None:
            self._model = self.plan.new_model().to(self.device)
        furnish(self._model, objective, self.plan.seed)
        return self._model
