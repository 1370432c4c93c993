"""Who gained, who lost: the federated model against each site's own and against pooled training, paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.evaluation.results import Result
from server.cohort import Cohort
from server.judge import Judge
from strategies.plan import Phase


def gain_lines(
    judge: Judge, cohorts: Sequence[Cohort], scores: Mapping[str, np.ndarray], phase: Phase
) -> list[dict[str, Any]]:
    """One line per site and finding on that site's own held-out patients, and lines for ``central``: all patients, with
    the mean over the local models. ``difference`` is federated minus local, AUROC (R@1 for text), with its paired interval.
    """
    local = {c.trained_on: scores[c.name] for c in cohorts if c.arm == "local"}
    if not local:
        return []
    pooled = next((scores[c.name] for c in cohorts if c.arm == "pooled"), None)
    federated = next(scores[c.name] for c in cohorts if c.arm == "federated")
    lines = []
    for site in [None, *(s for s in judge.sites if s in local)]:
        own = np.stack(list(local.values())) if site is None else local[site]
        values = {
            name: _headlines(judge.results(found, phase, site), judge.headline(phase)) if found is not None else {}
            for name, found in (("local", own), ("federated", federated), ("pooled", pooled))
        }
        for row in judge.difference(federated if own.ndim == 2 else federated[None], own, phase, site):
            lines.append(
                {
                    "finding": row.finding,
                    "site": site or "central",
                    **{name: values[name].get(row.finding) for name in values},
                    "difference": row.value,
                    "low": row.low,
                    "high": row.high,
                    "n": row.n,
                    "positives": row.positives,
                    "reason": row.reason,
                }
            )
    return lines


def _headlines(rows: Sequence[Result], metric: str) -> dict[str, float | None]:
    return {row.finding: row.value for row in rows if row.metric == metric}
