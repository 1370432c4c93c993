"""Objectives, one file each: a loss over a view that trains some components.

An objective module holds ``Config`` (its first field is its name) and the objective itself, which ``Config.build()``
returns and which satisfies :class:`Objective`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from models.evaluation.results import Result


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

    def step(self, model: nn.Module, batch: Any, schedule: Schedule) -> dict[str, Tensor] | Iterator[dict[str, Tensor]]:
        """Losses of one batch; every key that ends in ``_loss`` is summed.

        An iterator gives the losses in parts that add up: each part is back-propagated before the next is asked for,
        so that the activations of one part are held at a time.
        """


@dataclass(frozen=True)
class Order:
    """The batches of a round: (step of the schedule, items [b]). Several batches may stand at one step, such as extra
    passes over labelled films; ``steps`` is how many steps the schedule counts."""

    steps: int
    batches: Sequence[tuple[int, Tensor]]


class Resident(Protocol):
    """What an objective may have beside :class:`Objective`, when part of what it needs lives at the site for good.

    Such components are called ``site.<name>``. They never travel: the site keeps them between rounds.
    """

    trains_here: tuple[str, ...]
    """``site.`` components that the optimiser moves."""
    supervised: bool
    """Whether it trains on true labels alone, so that what it leaves knows the findings."""
    needs_labels: bool
    """Whether it is of use only if true labels are somewhere in the federation, then or in an earlier phase."""
    in_parts: bool
    """Whether ``step`` gives its losses part by part."""

    def residents(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """Fresh ``site.`` components by name (without ``site.``), for a model that has none yet."""

    def begin(self, model: nn.Module, schedule: Schedule, kept: Collection[str]) -> None:
        """Before the first step of a round; ``kept``: the ``site.`` components that hold what an earlier round left."""

    def order(self, view: Any, local: Any, schedule: Schedule, generator: torch.Generator) -> Order:
        """The batches of this round, in place of plain shuffling."""

    def after_step(self, model: nn.Module, batch: Any, schedule: Schedule) -> None:
        """After the optimiser's step, for what follows the student without a gradient."""

    def notes(self, view: Any, min_cell: int) -> list[Result]:
        """At the end of a round, what its training is to be judged by. They travel: no count of fewer than
        ``min_cell`` patients may be read from them."""


def held_out_view(objective: Objective, store: Any, rows: Any) -> Any:
    """The labelled view on which the objective's model is judged: ``open_held_out`` where the objective tells it from
    what it trains on."""
    return getattr(objective, "open_held_out", objective.open)(store, rows)
