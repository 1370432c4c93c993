"""The server's end of low-rank adapters, for one cohort: what each site is sent of them, and the chain of folds.

A site is sent what it is not known to hold; after a restart of the server that is everything but what both sides make from
the seed. Nothing here knows a rule's mathematics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.model import CxrModel
from models.text.adapters import draw
from models.text.folding import Fold, heads
from strategies.adapters import (
    COMPONENT,
    cut,
    factor_of,
    facts,
    fold_name,
    in_dtype,
    makeable,
    names_without,
    of_factor,
    part_id,
)
from strategies.plan import Phase, RunConfig
from strategies.rules._adapters import AdapterRule, Setting
from strategies.rules._base import Rule

FOLD = "fold/"
"""Of a fold's tensors in a checkpoint: ``fold/<number>/terms`` [k,2] and ``fold/<number>/<name>``."""


@dataclass(frozen=True)
class Parcel:
    """What one site is sent. tensors: in the type that they travel in; terms: ``Ask.adapter``; back: what it must answer
    with, in shape; parts: what it holds once it has this."""

    tensors: dict[str, Tensor]
    terms: dict[str, Any]
    back: dict[str, Tensor]
    parts: frozenset[str]


class Desk:
    """One cohort's adapters. ranks: of the sites that have another than the model's."""

    def __init__(self, plan: RunConfig, base: str, start: Mapping[str, Tensor], ranks: Mapping[str, int]) -> None:
        self.plan, self.lora, self.base = plan, plan.model.text.lora, base
        self.ranks = dict(ranks)
        self.folds: list[Fold] = []
        self.heads: list[str] = []
        self._start = {name: value.clone() for name, value in start.items() if factor_of(name)}
        self._held: dict[str, frozenset[str]] = {}
        self._asked: dict[str, Parcel] = {}

    @classmethod
    def of(cls, plan: RunConfig, model: CxrModel, ranks: Mapping[str, int]) -> Desk | None:
        """The desk of a run that starts from ``model``; None if it has no adapters."""
        if plan.model.text is None or plan.model.text.lora is None:
            return None
        return cls(plan, model.text.base_hash, model.state([COMPONENT]), ranks)

    def begin(self, phase: Phase, rule: Rule, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tell ``rule`` of the run at the start of ``phase``; what of the cohort's ``tensors`` changes by it."""
        if not isinstance(rule, AdapterRule):
            return {}
        wire = getattr(torch, phase.exchange.dtype)
        setting = Setting(
            self.lora.alpha, wire, lambda number, name, shape: draw(self.plan.seed, phase.name, number, name, shape)
        )
        changed = rule.begin(setting, {name: value for name, value in tensors.items() if factor_of(name)})
        self.take(rule)
        return changed

    def take(self, rule: Rule) -> None:
        """Add what the rule's last step folds into the base."""
        if (fold := getattr(rule, "fold", None)) is not None:
            self.folds.append(fold)
            self.heads.append(fold.link(self.head))
            rule.fold = None

    @property
    def head(self) -> str:
        return self.heads[-1] if self.heads else self.base

    def rounded(self, tensors: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
        """The factors among ``tensors`` as every site will have them: a rule is exact only if the factor that it holds
        still is the same at both ends."""
        wire = getattr(torch, dtype)
        return {name: value.to(wire).to(value.dtype) for name, value in tensors.items() if factor_of(name)}

    def parcel(
        self, site: str, phase: Phase, rule: Rule | None, train: str, all_tensors: Mapping[str, Tensor]
    ) -> Parcel:
        """What ``site`` is sent in a round that trains the factors ``train``; ``all_tensors``: the cohort's, rounded."""
        travel = COMPONENT in phase.exchange.travelling(phase.objective.build().trains)
        personal = not travel and COMPONENT in phase.objective.build().trains
        factors = {name: value for name, value in all_tensors.items() if factor_of(name)}
        rank, dtype = self.ranks.get(site, self.lora.rank), phase.exchange.dtype
        mine = self._for_rank(factors, rank)
        drawn = rule.drawn if isinstance(rule, AdapterRule) else None
        pieces, tensors = {}, {}
        held = self._held.get(site, frozenset()) | self._makeable(phase, rank, drawn)
        for factor in () if personal else ("A", "B"):
            part = in_dtype(of_factor(mine, factor), dtype)
            pieces[factor] = part_id(part)
            if pieces[factor] not in held:
                tensors |= part
        for number, (fold, head) in enumerate(zip(self.folds, self.heads)):
            if head not in held:
                tensors |= {fold_name(number, name): value for name, value in fold.tensors.items()}
        chain = [{"id": h, "terms": [[r, c] for r, c in f.terms]} for f, h in zip(self.folds, self.heads)]
        said = facts(self.lora, rank, self.head, "AB" if personal else train)
        back = {name: value for name, value in mine.items() if name not in names_without(mine, train)} if travel else {}
        parcel = Parcel(
            tensors,
            {**said, "pieces": pieces, "folds": chain, "drawn": drawn},
            back,
            frozenset([*pieces.values(), *self.heads]),
        )
        self._asked[site] = parcel
        return parcel

    def asked(self, site: str) -> Parcel:
        """What the site was last sent."""
        return self._asked[site]

    def holds(self, site: str, answered: bool) -> None:
        """Whether ``site`` answered its last parcel and so has it; if it lacks a part it will be sent all."""
        if answered:
            self._held[site] = self._asked[site].parts
        else:
            self._held.pop(site, None)

    def _for_rank(self, factors: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
        """The leading part of the adapters at another rank: the scale alpha / rank is made up for in B."""
        if rank == self.lora.rank:
            return dict(factors)
        share = rank / self.lora.rank
        return {n: t if factor_of(n) == "A" else t * share for n, t in cut(factors, rank).items()}

    def _makeable(self, phase: Phase, rank: int, drawn: int | None) -> frozenset[str]:
        """Parts that every site can make of the seed."""
        start, seed = cut(self._start, rank), self.plan.seed
        found = (part for factor in ("A", "B") for part in makeable(start, factor, seed, phase.name, drawn))
        return frozenset(part_id(in_dtype(part, phase.exchange.dtype)) for part in found)

    # -- in a checkpoint -------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """The chain of folds, as tensors."""
        out = {}
        for number, fold in enumerate(self.folds):
            out[f"{FOLD}{number:04d}/terms"] = torch.tensor(fold.terms, dtype=torch.float64)
            out |= {f"{FOLD}{number:04d}/{name}": value for name, value in fold.tensors.items()}
        return out

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take ``state`` back; what the sites hold is not known."""
        self.folds = read_folds(tensors)
        self.heads = heads(self.base, self.folds)
        self._held.clear()


def read_folds(tensors: Mapping[str, Tensor]) -> list[Fold]:
    """The folds of a ``Desk.state`` among ``tensors``."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(FOLD):
            _, number, name = key.split("/", 2)
            found.setdefault(number, {})[name] = value
    return [
        Fold(tuple((int(rank), c) for rank, c in parts.pop("terms").tolist()), parts)
        for _, parts in sorted(found.items())
    ]


def unfit_rank(plan: RunConfig, said: Any) -> str | None:
    """Why a site that says that its adapters have rank ``said`` cannot take part; None if it can."""
    lora = plan.model.text.lora if plan.model.text else None
    if said is None or lora is None:
        return None
    if isinstance(said, bool) or not isinstance(said, int) or said < 1:
        return "the hello names a rank of adapters that is no whole number of at least 1"
    if said > lora.rank:
        return f"lora_rank {said} here, and the plan's model has {lora.rank}: the site's can only be lower"
    fixed = [p.name for p in plan.phases if _one_rank(p)]
    if fixed and said != lora.rank:
        return (
            f"lora_rank {said} here, {lora.rank} in the plan, and phase {fixed[0]!r} takes one rank for all sites; 'stack' and "
            f"'svd' take several"
        )
    return None


def _one_rank(phase: Phase) -> bool:
    return COMPONENT in phase.objective.build().trains and not getattr(phase.rule.build(), "mixed", False)
