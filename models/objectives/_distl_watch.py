"""Keeps an eye on a round of self-training: what the pseudo-labels look like, and when they say nothing any more."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.evaluation.results import COLLAPSED, ONE_CLASS, TEACHER_RESET, Result
from models.studies.schema import Label


class Watch:
    """Sums over the pseudo-labels of a round, on the device; nothing is waited for until the round's end."""

    def __init__(self, findings: tuple[str, ...], tolerance: float) -> None:
        self.findings, self.tolerance = findings, tolerance
        self._sums: Tensor | None = None
        self.reset = False
        """Whether the teacher had to be replaced, because it held NaN or infinity."""

    def see(self, pseudo_BF: Tensor) -> None:
        """Take in a batch of pseudo-labels, probabilities [B,F]."""
        p = pseudo_BF.detach().double()
        ones = torch.ones_like(p)
        seen = torch.stack([ones, p, p.square(), (p > 0.5).double()]).sum(dim=1)
        self._sums = seen if self._sums is None else self._sums + seen

    def notes(self, view: Any, min_cell: int) -> list[Result]:
        """Mean pseudo-label and share of those over 1/2 for each finding, and the alarms.

        Nothing tells that a class has no patient at all here: below ``min_cell`` patients all counts read alike.
        """
        found: list[Result] = []
        people = len(np.unique(view.patients[view.labelled :]))
        if self._sums is not None and people >= min_cell:
            answers = _count(view.labels[: view.labelled])
            for name, (n, total, squares, present), known in zip(self.findings, self._sums.T.tolist(), answers):
                mean, share = total / n, present / n
                found.append(Result("pseudo_mean", name, mean, n=int(n)))
                found.append(Result("pseudo_present", name, share, n=int(n)))
                why = self._collapse(mean, max(squares / n - mean**2, 0.0), share, known)
                if why:
                    found.append(Result(COLLAPSED, name, 1.0, n=int(n), reason=why))
        for name, column in zip(self.findings, np.asarray(view.labels)[: view.labelled].T):
            persons = [
                len(np.unique(view.patients[: view.labelled][column == c])) for c in (Label.PRESENT, Label.ABSENT)
            ]
            if view.labelled and min(persons) < max(min_cell, 1):
                why = f"fewer than {max(min_cell, 1)} labelled patients of one class; with none it is not trained on"
                found.append(Result(ONE_CLASS, name, 1.0, reason=why))
        if self.reset:
            why = "the teacher held NaN or infinity and was started again from the student received"
            found.append(Result(TEACHER_RESET, None, 1.0, n=len(view), reason=why))
        return found

    def _collapse(self, mean: float, variance: float, share: float, known: tuple[int, int]) -> str | None:
        """Why the pseudo-labels of a finding carry nothing; None while they do.

        Two ways to fail. All films get nearly the same probability: its variance is less than a hundredth of
        ``tolerance`` of what labels of that mean could have. Or all fall on one side of 1/2 although the rarer answer is
        not rare: fewer than ``tolerance`` of them, where this site's own labels (where it has none, an even chance) have
        five times as many. A finding that is truly rare is not flagged.
        """
        if not self.tolerance:
            return None
        if variance <= self.tolerance / 100 * mean * (1 - mean):
            return f"all pseudo-labels are nearly the same, {mean:.3g}"
        present, absent = known
        expected = min(present, absent) / (present + absent) if present and absent else 0.5
        if min(share, 1 - share) < self.tolerance and expected > 5 * self.tolerance:
            return f"{max(share, 1 - share):.1%} of the pseudo-labels say {'present' if share > 0.5 else 'absent'}"
        return None


def _count(labels_NF: Any) -> list[tuple[int, int]]:
    """(present, absent) by finding."""
    return [(int((c == Label.PRESENT).sum()), int((c == Label.ABSENT).sum())) for c in np.asarray(labels_NF).T]


def answered_both_ways(labels_NF: Any) -> np.ndarray:
    """Which findings (bool [F]) have films of both answers: the others cannot be learnt from these labels."""
    return np.array([present > 0 and absent > 0 for present, absent in _count(labels_NF)], dtype=bool)
