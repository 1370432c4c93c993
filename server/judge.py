"""Central evaluation on a shared set of patients nobody trains on, by the shared protocol.

In a simulation that set is the union of all virtual sites' held-out patients. Every cohort is judged on the same
patients and the same resamples, so that differences between them can be paired.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from models.evaluation import judging
from models.evaluation.delong import delong_rows
from models.evaluation.results import Result
from models.model import CxrModel
from models.objectives import held_out_view
from models.studies.store import Store
from strategies.plan import Evaluation, Phase


class Judge:
    """Holds the shared set; ``rows`` are the held-out rows of the store by site."""

    def __init__(self, store: Store, rows: dict[str, np.ndarray], settings: Evaluation, seed: int) -> None:
        self.store, self.settings, self.seed = store, settings, seed
        self.sites = [site for site in sorted(rows) if len(rows[site])]
        self.rows = np.concatenate([rows[s] for s in self.sites])
        self._site_of = {int(row): i for i, s in enumerate(self.sites) for row in rows[s]}
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._views: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def view(self, phase: Phase) -> Any:
        if phase.name not in self._views:
            self._views[phase.name] = held_out_view(phase.objective.build(), self.store, self.rows)
        return self._views[phase.name]

    def _strata(self, phase: Phase) -> np.ndarray:
        """Number of the site of each film of the view: a film without a label of the phase is not in it."""
        return np.array([self._site_of[int(row)] for row in self.view(phase).rows])

    def scores(self, model: CxrModel, phase: Phase) -> np.ndarray:
        """What ``model`` makes of the shared set: probabilities [N,F], or what each question on reports earns [N,K]."""
        view = self.view(phase)
        return judging.scores(
            model.to(self.device), phase.objective.build(), view, self.device, self.settings.batch_size
        )

    def headline(self, phase: Phase) -> str:
        """The metric that tells a model of this phase in one number."""
        return judging.headline(self.view(phase))

    def results(self, scores: np.ndarray, phase: Phase, site: str | None = None) -> list[Result]:
        """The protocol on scores [N,F] (or [M,N,F] for a mean over models), on all patients or on one site's."""
        return judging.results(
            scores,
            self.view(phase),
            phase.objective.findings,
            chosen=self._chosen(phase, site),
            strata=None if site else self._strata(phase),
            replicates=self.settings.replicates,
            seed=self.seed,
            min_cell=self.settings.min_cell if site else 0,
        )

    def difference(self, a: np.ndarray, b: np.ndarray, phase: Phase, site: str | None = None) -> list[Result]:
        """The headline metric of ``a`` minus that of ``b`` on equal resamples."""
        return judging.difference(
            a,
            b,
            self.view(phase),
            phase.objective.findings,
            chosen=self._chosen(phase, site),
            replicates=self.settings.replicates,
            seed=self.seed,
            min_cell=self.settings.min_cell if site else 0,
        )

    def delong(self, scores: np.ndarray, phase: Phase, reference: np.ndarray | None) -> list[Result]:
        """DeLong's intervals of scores [N,F] and, against ``reference`` on the same films, its paired test."""
        view = self.view(phase)
        if judging.is_text(view):
            return []
        return delong_rows(scores, view.labels, view.patients, phase.objective.findings, reference)

    def _chosen(self, phase: Phase, site: str | None) -> np.ndarray:
        if site is None:
            return np.arange(len(self._strata(phase)))
        return np.flatnonzero(self._strata(phase) == self.sites.index(site))
