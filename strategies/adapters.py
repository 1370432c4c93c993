"""What server and site say of low-rank adapters (LoRA), and how neither is sent what it holds already.

A round trains one factor of every adapted layer, or both (``Ask.adapter["train"]``: "A", "B", "AB", or "" for none).
Ask and answer carry the same facts: rank, alpha, targets, base and train; whoever finds another value refuses. ``base``
is the head of a chain: SHA-256 of the frozen weights, and one link for every fold (``models.text.folding``).

The factors of all layers are one part each, named by the SHA-256 of what travels. A part that the site holds, because it
received it or can draw it from the run's seed, is named and not sent. Folds are parts too: tensors
``text_lora/fold.<number>.<layer>.lora_A.weight`` and the like.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from models.checkpoint import hash_tensors
from models.text.adapters import draw
from models.text.config import Lora

COMPONENT = "text_lora"
FACTS = ("rank", "alpha", "targets", "base", "train")
"""What ask and answer must agree on."""
TRAIN = ("", "A", "B", "AB")
_ENDS = {"A": ".lora_A.weight", "B": ".lora_B.weight"}


def factor_of(name: str) -> str | None:
    """``"A"`` or ``"B"`` for the name of an adapter's tensor, None for any other."""
    return next((factor for factor, end in _ENDS.items() if name.endswith(end)), None)


def of_factor(tensors: Mapping[str, Any], factor: str) -> dict[str, Any]:
    """The entries of ``tensors`` that are of ``factor``."""
    return {name: value for name, value in tensors.items() if factor_of(name) == factor}


def fold_name(number: int, name: str) -> str:
    """Name on the wire of tensor ``name`` of the fold ``number``."""
    return f"{COMPONENT}/fold.{number}.{name}"


def facts(lora: Lora, rank: int, base: str, train: str) -> dict[str, Any]:
    """The facts of adapters of ``rank`` on the base whose chain ends in ``base``."""
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    return {"rank": rank, "alpha": float(lora.alpha), "targets": targets, "base": base, "train": train}


def disagreement(asked: Mapping[str, Any], own: Mapping[str, Any]) -> str | None:
    """The first of ``FACTS`` on which two sides differ, in words; None if they agree."""
    for key in FACTS:
        if key not in asked or asked[key] != own[key]:
            return f"adapter.{key} is {_short(asked.get(key))}, here it is {_short(own[key])}"
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 24 else f"{text[:20]}..."


def part_id(tensors: Mapping[str, Tensor]) -> str:
    """Name of a part: SHA-256 of its tensors as they travel."""
    return hash_tensors(tensors)


def in_dtype(tensors: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """``tensors`` as they travel in wire dtype ``dtype``."""
    return {name: value.detach().to("cpu", getattr(torch, dtype)) for name, value in tensors.items()}


def cut(tensors: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """The first ``rank`` rows of every A and columns of every B."""
    return {n: (t[:rank] if factor_of(n) == "A" else t[:, :rank]).contiguous() for n, t in tensors.items()}


def makeable(
    start: Mapping[str, Tensor], factor: str, seed: int, phase: str, drawn: int | None
) -> Iterator[dict[str, Tensor]]:
    """What server and site can both make of ``factor`` without sending it: that of the run's common ``start``, zero, and
    an A drawn afresh from the seed for round ``drawn``. Server and site must list the same."""
    begun = of_factor(start, factor)
    yield begun
    yield {name: torch.zeros_like(value) for name, value in begun.items()}
    if factor == "A" and drawn:
        yield {name: draw(seed, phase, drawn, name, tuple(value.shape)) for name, value in begun.items()}


def names_without(names: Iterable[str], train: str) -> tuple[str, ...]:
    """Names of the factors that a round leaves alone."""
    return tuple(name for name in names if (factor := factor_of(name)) is not None and factor not in train)
