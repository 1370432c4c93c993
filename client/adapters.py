"""Low-rank adapters at a site: the base that the ask means, the factors that it names, and which of them it trains.

What the site holds is not sent: factors are looked for among what earlier rounds brought, in the run's common start, and in
what both sides draw from the seed; folds among what earlier rounds brought. Everything is checked by its hash. The facts of
the ask (rank, alpha, targets, base, factor) must be those of the model here, or it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from client.parts import ID, Parts
from models.model import CxrModel
from models.text.folding import Fold
from strategies.adapters import (
    COMPONENT,
    TRAIN,
    cut,
    disagreement,
    factor_of,
    facts,
    fold_name,
    in_dtype,
    makeable,
    names_without,
    of_factor,
    part_id,
)
from strategies.messages import WIRE_DTYPES, Ask, Code
from strategies.wire import as_sent, to_wire


class NotOurs(Exception):
    """The ask cannot be followed; carries the code and the line of a refusal."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


@dataclass(frozen=True)
class Prepared:
    """ask: with every tensor that it means, as if all had been sent; facts: for the answer; frozen: names that this round
    does not train."""

    ask: Ask
    facts: dict[str, Any]
    frozen: tuple[str, ...]


def prepare(ask: Ask, model: CxrModel, start: Mapping[str, Tensor], parts: Parts, rank: int | None) -> Prepared:
    """Give ``model`` the base and the rank of the ask.

    Args:
        start: the adapters' tensors in the run's common start, of the model's own rank.
        rank: what this site is set to; None for the model's own.

    Raises:
        NotOurs: facts that differ from the site's, a part that is neither sent nor here, or one that is not what it is
            called.
    """
    lora = model.text.cfg.lora if model.text is not None else None
    if (lora is None) != (not ask.adapter):
        said = (
            "says nothing of adapters, and this model has some" if lora else "is of adapters, and this model has none"
        )
        raise NotOurs(Code.ADAPTER, f"the ask {said}")
    if lora is None:
        return Prepared(ask, {}, ())
    _check_form(ask)
    text, terms = model.text, ask.adapter
    rank = min(rank or lora.rank, lora.rank)
    # The base last: it is made only for an ask that agrees in all else.
    if odd := disagreement(terms, facts(lora, rank, terms["base"], terms["train"])):
        raise NotOurs(Code.ADAPTER, odd)
    if odd := [name for name in start if factor_of(name) is None]:
        raise NotOurs(Code.ADAPTER, f"{odd[0]!r} is no factor")
    _rebase(ask, text.folded, text.base_hash, parts)
    own = facts(lora, rank, text.base_head, terms["train"])
    if odd := disagreement(terms, own):
        raise NotOurs(Code.ADAPTER, odd)
    adapters = model.components()[COMPONENT]
    adapters.resize(rank, lora.alpha)
    found = _factors(ask, cut(start, rank), parts)
    parts.keep({*terms["pieces"].values(), *(fold["id"] for fold in terms["folds"])})
    rest = ask.only({name for name in ask.tensors if not name.startswith(f"{COMPONENT}/")})
    if COMPONENT in ask.components:
        arrays, bf16 = to_wire(found, ask.wire_dtype)
        whole = replace(rest, tensors=rest.tensors | arrays, bf16=rest.bf16 + bf16)
        return Prepared(whole, own, names_without(start, terms["train"]))
    if found:
        model.load([COMPONENT], found)
    return Prepared(rest, own, ())


def _check_form(ask: Ask) -> None:
    """Raises NotOurs if the terms are not of the form that they must have."""
    terms = ask.adapter
    pieces, folds, drawn = (terms.get(key) for key in ("pieces", "folds", "drawn"))
    whole = lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31
    number = lambda value: isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
    name = lambda value: isinstance(value, str) and ID.fullmatch(value) is not None
    good = (
        terms.get("train") in TRAIN
        and name(terms.get("base"))
        and whole(terms.get("rank"))
        and isinstance(pieces, dict)
        and set(pieces) in (set(), {"A", "B"})
        and all(map(name, pieces.values()))
        and isinstance(folds, list)
        and all(isinstance(f, dict) and set(f) == {"id", "terms"} and name(f["id"]) for f in folds)
        and all(isinstance(f["terms"], list) and f["terms"] for f in folds)
        and all(isinstance(t, list) and len(t) == 2 and whole(t[0]) and number(t[1]) for f in folds for t in f["terms"])
        and (drawn is None or whole(drawn))
        and ask.wire_dtype in WIRE_DTYPES
    )
    if not good:
        raise NotOurs(Code.BAD_REQUEST, "the ask's terms of adapters are not of the form that they must have")


def _rebase(ask: Ask, folded: Any, base: str, parts: Parts) -> None:
    wanted = [fold["id"] for fold in ask.adapter["folds"]]
    if (wanted[-1] if wanted else base) != ask.adapter["base"]:
        raise NotOurs(
            Code.ADAPTER, f"adapter.base is {ask.adapter['base'][:12]}..., here it is {(wanted or [base])[-1][:12]}..."
        )
    received = {number: _sent_fold(ask, number) for number in range(len(wanted))}
    for number in range(folded.shared(wanted), len(wanted)):
        terms = tuple((int(rank), float(c)) for rank, c in ask.adapter["folds"][number]["terms"])
        tensors = received[number] or parts.get(wanted[number])
        if tensors is None:
            raise NotOurs(Code.PART, f"fold {number + 1} of {len(wanted)} is neither sent nor here; send all")
        fold = Fold(terms, tensors)
        if fold.link(wanted[number - 1] if number else base) != wanted[number]:
            raise NotOurs(Code.ADAPTER, f"fold {number + 1} of {len(wanted)} is not what its name says: another base")
        if wrong := fold.wrong(folded.shapes):
            raise NotOurs(Code.BAD_REQUEST, wrong)
        folded.add(fold, wanted[number])
        parts.put(wanted[number], tensors)


def _sent_fold(ask: Ask, number: int) -> dict[str, Tensor] | None:
    prefix = fold_name(number, "")
    sent = as_sent({n: array for n, array in ask.tensors.items() if n.startswith(prefix)}, ask.bf16)
    return {name.removeprefix(prefix): tensor for name, tensor in sent.items()} or None


def _factors(ask: Ask, start: Mapping[str, Tensor], parts: Parts) -> dict[str, Tensor]:
    """Both factors as the ask names them, in the wire's type."""
    found: dict[str, Tensor] = {}
    for factor, part in ask.adapter["pieces"].items():
        names = of_factor(start, factor)
        sent = as_sent({name: ask.tensors[name] for name in names if name in ask.tensors}, ask.bf16)
        tensors = sent or parts.get(part) or _remade(ask, start, factor, part)
        if tensors is None:
            raise NotOurs(Code.PART, f"factor {factor} is neither sent nor here; send it")
        if part_id(tensors) != part or {n: t.shape for n, t in tensors.items()} != {n: names[n].shape for n in names}:
            raise NotOurs(Code.BAD_REQUEST, f"factor {factor} is not what its name says")
        parts.put(part, tensors)
        found |= tensors
    return found


def _remade(ask: Ask, start: Mapping[str, Tensor], factor: str, part: str) -> dict[str, Tensor] | None:
    """The factor that ``part`` names, if both sides can make it."""
    for tensors in makeable(start, factor, ask.seed, ask.phase, ask.adapter["drawn"]):
        tensors = in_dtype(tensors, ask.wire_dtype)
        if part_id(tensors) == part:
            return tensors
    return None
