"""Central evaluation on a shared set of patients nobody trains on, by the shared protocol.

In a simulation that set is the union of all virtual sites' held-out patients. Every cohort is judged on the same
patients and the same resamples, so that differences between them can be paired.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from models.evaluation.delong import delong_rows
from models.evaluation.diagnosis import probabilities
from models.evaluation.protocol import evaluate, paired_difference
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
        """Probabilities [N,F] of ``model`` on the shared set."""
        objective, view = phase.objective.build(), self.view(phase)
        return probabilities(model.to(self.device), objective, view, self.device, self.settings.batch_size)

    def results(self, scores: np.ndarray, phase: Phase, site: str | None = None) -> list[Result]:
        """The protocol on scores [N,F] (or [M,N,F] for a mean over models), on all patients or on one site's."""
        view, chosen = self.view(phase), self._chosen(phase, site)
        return evaluate(
            scores[..., chosen, :],
            view.labels[chosen],
            view.patients[chosen],
            phase.objective.findings,
            strata=None if site else self._strata(phase),
            replicates=self.settings.replicates,
            seed=self.seed,
            min_cell=self.settings.min_cell if site else 0,
        )

    def difference(self, a: np.ndarray, b: np.ndarray, phase: Phase, site: str | None = None) -> list[Result]:
        """AUROC of ``a`` minus AUROC of ``b`` on equal resamples."""
        view, chosen = self.view(phase), self._chosen(phase, site)
        return paired_difference(
            a[..., chosen, :],
            b[..., chosen, :],
            view.labels[chosen],
            view.patients[chosen],
            phase.objective.findings,
            replicates=self.settings.replicates,
            seed=self.seed,
            min_cell=self.settings.min_cell if site else 0,
        )

    def delong(self, scores: np.ndarray, phase: Phase, reference: np.ndarray | None) -> list[Result]:
        """DeLong's intervals of scores [N,F] and, against ``reference`` on the same films, its paired test."""
        view = self.view(phase)
        return delong_rows(scores, view.labels, view.patients, phase.objective.findings, reference)

    def _chosen(self, phase: Phase, site: str | None) -> np.ndarray:
        if site is None:
            return np.arange(len(self.view(phase)))
        return np.flatnonzero(self._strata(phase) == self.sites.index(site))
