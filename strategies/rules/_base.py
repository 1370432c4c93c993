"""What a rule is, and the weighted mean that most of them start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from models.evaluation.results import Result


@dataclass(frozen=True)
class Update:
    """One accepted reply: the site's trained tensors and its weight (examples)."""

    site: str
    tensors: Mapping[str, Tensor]
    weight: float


class Rule:
    """Combines the updates of a round into the next global tensors.

    ``local`` returns what the site's loop must add (e.g. a proximal term). A rule with memory keeps it in
    ``self.memory``, flat name to tensor, which is saved with each checkpoint and restored on resume. ``notes``: what the
    last ``combine`` has to say of itself, for the run's metrics.
    """

    adapters: ClassVar[bool] = False
    """Whether it is right for low-rank adapters, whose product counts and not their factors."""

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        self.memory: dict[str, Tensor] = {}
        self.notes: list[Result] = []

    def local(self) -> dict[str, float]:
        """Settings that the local loop takes over, by name of its config field."""
        return {}

    def combine(self, current: Mapping[str, Tensor], updates: Sequence[Update]) -> dict[str, Tensor]:
        """Next tensors, with the names, shapes and dtypes of ``current``."""
        raise TypeError(f"{type(self).__name__} does not combine")  # every rule states its own


def weighted_mean(current: Mapping[str, Tensor], updates: Sequence[Update]) -> dict[str, Tensor]:
    """Mean of the updates by weight, in float64. Sites are added in the order of their names, so that the
    result does not depend on who answered first.

    Integer and boolean tensors are copied from ``current``.

    Raises:
        ValueError: no update, or weights that do not sum to a positive number.
    """
    if not updates:
        raise ValueError("nothing to average: no update was accepted")
    ordered = sorted(updates, key=lambda u: u.site)
    total = sum(u.weight for u in ordered)
    if not total > 0:
        raise ValueError(f"the weights of {len(ordered)} updates sum to {total}; they must sum to more than 0")
    out: dict[str, Tensor] = {}
    for name, reference in current.items():
        if not reference.is_floating_point():
            out[name] = reference.clone()
            continue
        mean = torch.zeros(reference.shape, dtype=torch.float64)
        for update in ordered:
            mean.add_(update.tensors[name].double(), alpha=update.weight / total)
        out[name] = mean
    return out


def as_reference(tensors: Mapping[str, Tensor], current: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` in the dtypes of ``current``."""
    return {name: tensors[name].to(reference.dtype) for name, reference in current.items()}
