"""A cohort: sites that share one model. The federation is one cohort of all sites; for comparison each site alone is a
cohort of one, and so is the virtual site that pools everybody's patients. All of them run the same code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from models.config import to_plain
from models.evaluation.results import Result
from models.model import CxrModel
from server.adapters import FOLD, Desk
from strategies.adapters import factor_of
from strategies.guard import GuardConfig, inspect
from strategies.messages import Answer, Ask, Code, Kind, Refusal
from strategies.plan import Arm, Phase, RunConfig
from strategies.rules._base import Rule, Update
from strategies.wire import as_they_are, to_wire


@dataclass
class Outcome:
    """What came of one round in one cohort."""

    accepted: list[str] = field(default_factory=list)
    refused: list[tuple[str, Refusal]] = field(default_factory=list)
    norms: dict[str, float] = field(default_factory=dict)
    notes: list[Result] = field(default_factory=list)  # of the rule
    combined: bool = False


class Cohort:
    """One model, its sites and its rule; ``desk``: its adapters, if the model has some."""

    def __init__(
        self, name: str, arm: Arm, sites: Sequence[str], start: Mapping[str, Tensor], desk: Desk | None = None
    ) -> None:
        self.name, self.arm, self.sites = name, arm, tuple(sites)
        self.tensors = {key: value.clone() for key, value in start.items()}
        self.rule: Rule | None = None
        self.desk = desk
        self._sent: dict[str, Tensor] = {}

    @property
    def trained_on(self) -> str | None:
        """The site whose own model this is, for the arm ``local``."""
        return self.sites[0] if self.arm == "local" else None

    def begin(self, phase: Phase) -> None:
        """Start a phase with a fresh rule."""
        self.rule = phase.rule.build()
        if self.desk:
            self.tensors |= self.desk.begin(phase, self.rule, self.tensors)

    def ask(
        self,
        plan: RunConfig,
        phase: Phase,
        kind: Kind,
        number: int,
        common: Mapping[str, Any],
        sites: Sequence[str] | None = None,
    ) -> dict[str, Ask]:
        """The asks of one round to ``sites`` (all, if None), by site. What is sent is remembered, so that replies are
        judged against it."""
        components = phase.exchange.travelling(phase.objective.build().trains)
        if self.desk:
            self.tensors |= self.desk.rounded(self.tensors, phase.exchange.dtype)
        travelling = {n: t for n, t in self.tensors.items() if n.split("/")[0] in components}
        self._sent = phase.exchange.select(travelling)
        settled = sorted(name for name in plan.settled(phase, self.tensors) if not factor_of(name))
        given = {n: t for n, t in self._sent.items() if not factor_of(n)} | {n: self.tensors[n] for n in settled}
        plain, plain_bf16 = to_wire(given, phase.exchange.dtype)
        asks = {}
        for site in self.sites if sites is None else sites:
            arrays, bf16, terms = plain, plain_bf16, {}
            if self.desk:
                parcel = self.desk.parcel(site, phase, self.rule, self._train(kind, number), self.tensors)
                more, more_bf16 = as_they_are(parcel.tensors)
                arrays, bf16, terms = plain | more, plain_bf16 + more_bf16, parcel.terms
            asks[site] = Ask(
                kind=kind,
                site=site,
                cohort=self.name,
                phase=phase.name,
                round=number,
                rounds=phase.rounds,
                model=model_request(plan),
                objective=to_plain(phase.objective),
                local=to_plain(phase.local),
                local_extra=self.rule.local() if self.rule else {},
                evaluation={**to_plain(plan.evaluation), **self._role(plan, phase, kind, number)},
                # The server judges the pooled model itself, but not the teacher that its site keeps.
                evaluate=(self.arm != "pooled" or plan.evaluation.reference is not None)
                and (kind is Kind.EVALUATE or (number - 1) % plan.evaluation.every == 0),
                components=components,
                keep=phase.exchange.keep,
                settled=tuple(sorted({name.split("/")[0] for name in settled})),
                wire_dtype=phase.exchange.dtype,
                adapter=terms,
                bf16=bf16,
                tensors=arrays,
                **common,
            )
        return asks

    def _train(self, kind: Kind, number: int) -> str:
        """The factors that round ``number`` trains."""
        return self.rule.train(number, self._sent) if kind is Kind.TRAIN and self.rule and self.rule.adapters else ""

    def _expected(self, site: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What the site's answer must hold, in shape, and the facts of its adapters."""
        if self.desk is None:
            return self._sent, {}
        parcel = self.desk.asked(site)
        return {n: t for n, t in self._sent.items() if not factor_of(n)} | parcel.back, parcel.terms

    def _role(self, plan: RunConfig, phase: Phase, kind: Kind, number: int) -> dict[str, Any]:
        """What the model sent is in the comparison with the reference phase's: before it, the reference, or compared."""
        if plan.evaluation.reference is None:
            return {}
        names = [p.name for p in plan.phases]
        after = names.index(phase.name) - names.index(plan.evaluation.reference)
        # What a round begins with is the end of the round, or the phase, before.
        first = after == 1 and number == 1 and kind is Kind.TRAIN
        role = "earlier" if after < 1 else "reference" if first else "compared"
        return {"role": role, "teacher_only": self.arm == "pooled"}

    def take(
        self, answers: Mapping[str, Answer], guard: GuardConfig, quorum: int, registered: Mapping[str, int]
    ) -> Outcome:
        """Guard the answers of a round and combine what is good, if there are at least ``quorum``."""
        outcome, updates = Outcome(), []
        for site, answer in sorted(answers.items()):
            sent, terms = self._expected(site)
            checked = answer.refusal or inspect(answer, sent, guard, registered.get(site), terms)
            if self.desk and (answer.refusal is None or answer.refusal.code is Code.PART):
                self.desk.holds(site, answer.refusal is None)
            if isinstance(checked, Refusal):
                outcome.refused.append((site, checked))
                continue
            tensors, outcome.norms[site] = checked
            updates.append(Update(site=site, tensors=tensors, weight=float(answer.examples)))
            outcome.accepted.append(site)
        if len(updates) >= quorum:
            self.tensors |= self.rule.combine(self._sent, updates)
            outcome.notes = list(self.rule.notes)
            outcome.combined = True
            if self.desk:
                self.desk.take(self.rule)
        return outcome

    def into(self, model: CxrModel) -> CxrModel:
        """Load this cohort's tensors, and its folds, into ``model``."""
        if self.desk:
            model.text.rebase(self.desk.folds)
        model.load(None, self.tensors)
        return model

    def memory(self) -> dict[str, Tensor]:
        """What a checkpoint must hold beside the model: the rule's memory, and the folds."""
        folds = self.desk.state() if self.desk else {}
        return {**(self.rule.memory if self.rule else {}), **folds}

    def restore(self, tensors: Mapping[str, Tensor], memory: Mapping[str, Tensor]) -> None:
        """Take a checkpoint back."""
        self.tensors = {key: value.clone() for key, value in tensors.items()}
        if self.rule is not None:
            own = {key: value for key, value in memory.items() if not key.startswith(FOLD)}
            self.rule.memory = {key: value.to(torch.float64) for key, value in own.items()}
        if self.desk:
            self.desk.restore(memory)


def model_request(plan: RunConfig) -> dict[str, Any]:
    """What a site needs to build the same model."""
    return {"config": to_plain(plan.model), "objectives": [to_plain(p.objective) for p in plan.phases]}
