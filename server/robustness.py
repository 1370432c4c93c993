"""The models at the end of a phase on spoilt films: AUROC at every kind and strength, and what it loses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from models.evaluation.protocol import evaluate, paired_difference
from models.evaluation.results import MACRO, Result
from models.evaluation.spoilt_films import KINDS, UNTOUCHED, Kind, scores_under
from models.model import CxrModel
from server.cohort import Cohort
from server.judge import Judge
from strategies.plan import Arm, Phase, RunConfig

At = tuple[Kind, float]


def robustness_rows(
    plan: RunConfig, judge: Judge, cohorts: Sequence[Cohort], model: CxrModel, phase: Phase
) -> Iterator[tuple[Arm, float, Result]]:
    """Arm, strength and result of each judgement on the shared held-out films; ``local``: the mean over its models.

    ``auroc_under_<kind>`` for every finding and their mean; ``auroc_difference_under_<kind>`` for the mean alone: minus
    that on untouched films, on equal resamples, so that its interval says whether anything was lost.
    """
    scores: dict[Arm, list[dict[At, np.ndarray]]] = {}
    for cohort in cohorts:
        scores.setdefault(cohort.arm, []).append(_scores(plan, judge, cohort.into(model), phase))
    view, findings = judge.view(phase), phase.objective.findings
    truth = (view.labels, view.patients, findings)
    more = {"replicates": plan.evaluation.replicates, "seed": plan.seed}
    for arm, models in scores.items():
        for kind, strength in models[0]:
            here, clean = (np.stack([m[at] for m in models]) for at in ((kind, strength), (kind, UNTOUCHED[kind])))
            for row in evaluate(here, *truth, **more):
                if row.metric == "auroc":
                    yield arm, strength, replace(row, metric=f"auroc_under_{kind}")
            if strength != UNTOUCHED[kind]:
                lost = next(r for r in paired_difference(here, clean, *truth, **more) if r.finding == MACRO)
                yield arm, strength, replace(lost, metric=f"auroc_difference_under_{kind}")


def _scores(plan: RunConfig, judge: Judge, model: CxrModel, phase: Phase) -> dict[At, np.ndarray]:
    """By kind and strength, [N,F]. The untouched films are scored once for all kinds."""
    wanted, objective = plan.evaluation.robustness, phase.objective.build()
    model.to(judge.device)
    found: dict[At, np.ndarray] = {}
    clean = None
    for kind in KINDS:
        for strength in wanted.strengths(kind):
            untouched = strength == UNTOUCHED[kind]
            if untouched and clean is not None:
                found[kind, strength] = clean
                continue
            found[kind, strength] = scores_under(
                model, objective, judge.view(phase), kind, strength, judge.device, plan.evaluation.batch_size
            )
            clean = found[kind, strength] if untouched else clean
    return found
