"""Objectives, one file each: a loss over a view that trains some components.

An objective module holds ``Config`` (its first field is its name) and the objective itself, which ``Config.build()``
returns and which satisfies :class:`Objective`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class Schedule:
    """Where in the whole run a step stands, so that a federation and one machine ramp alike.

    round: 1-based round of the phase; rounds: rounds of the phase; step, steps: 0-based step and steps in this round.
    """

    round: int
    rounds: int
    step: int
    steps: int

    @property
    def elapsed(self) -> float:
        """Rounds done so far, as a real number in [0, rounds)."""
        return self.round - 1 + self.step / self.steps

    @property
    def progress(self) -> float:
        """Share of the phase done, in [0, 1)."""
        return self.elapsed / self.rounds


@dataclass(frozen=True)
class PrivacyRecipe:
    """A sound way to train this objective privately: the ``unit`` protected and how its gradient is bounded."""

    unit: str
    bounded_by: str


class Objective(Protocol):
    """What the local loop needs of an objective."""

    view: ClassVar[type]
    trains: ClassVar[tuple[str, ...]]
    privacy: ClassVar[PrivacyRecipe | None]
    no_privacy: ClassVar[str]

    def heads(self, width: int) -> Mapping[str, nn.Module]:
        """Heads this objective adds to a model whose tower gives ``width`` features, by name."""

    def open(self, store: Any, rows: Any) -> Any:
        """The view this objective trains on."""

    def weights(self, view: Any) -> Tensor | None:
        """Sampling weight of each item [N], or None for plain shuffling."""

    def step(self, model: nn.Module, batch: Any, schedule: Schedule) -> dict[str, Tensor]:
        """Losses of one batch; every key that ends in ``_loss`` is summed."""
