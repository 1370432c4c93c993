"""When a self-training site looks at its true labels: corrections between the steps on unlabelled films."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from models.config import ConfigError, config
from models.loop import LoopConfig, batches
from models.objectives import Order, Schedule
from models.studies.crops import ViewConfig


@config
class Correction:
    """How often labelled films are shown. Give ``ratio`` or ``every``, or neither for no correction at all.

    ratio: labelled films shown for each unlabelled one, whatever the size of the site.
    every: unlabelled steps between two complete passes over the labelled films. A phase too short for that has a
        shorter period, so that it still has ``least`` passes: with a fixed period of 500 steps of 16 films a site with
        fewer than 1,600 unlabelled films would never be corrected.
    burst: with ``ratio``, whether labelled films come as complete passes or batch by batch.
    ema: whether the teacher follows the student through corrections too.
    views: whether a correction also compares views, as published; false for the diagnosis alone, at its full weight.
    augmented: how films of such a correction are changed; null for as all others are. What views need to be told apart
        may hide a finding.

    No correction stands before the first unlabelled step, when the learning rate is still at its lowest.
    """

    ratio: float | None = 0.5
    every: int | None = None
    least: int = 1
    burst: Literal["pass", "batch"] = "batch"
    ema: bool = False
    views: bool = True
    augmented: ViewConfig | None = None

    def check(self) -> None:
        if self.ratio is not None and self.every is not None:
            raise ConfigError(f"ratio {self.ratio} and every {self.every}: give one of the two, and null for the other")
        if self.ratio is not None and not self.ratio > 0:
            raise ConfigError(f"ratio {self.ratio}: must be positive; for no correction give null for ratio and every")
        if self.every is not None and self.every < 1:
            raise ConfigError(f"every {self.every}: at least 1 step; for no correction give null for ratio and every")
        if self.augmented is not None and self.views:
            raise ConfigError("augmented and views true: films whose views are compared are changed as all others are")
        if self.least < 0:
            raise ConfigError(f"least {self.least}: must not be negative")


def arrange(
    view: Any,
    local: LoopConfig,
    correction: Correction,
    weights: Tensor | None,
    schedule: Schedule,
    generator: torch.Generator,
) -> Order:
    """The batches of a round on ``view`` (``PartlyLabelled``): unlabelled steps count, corrections stand between them.

    Epochs are of unlabelled films. A site without any trains on its labelled ones, and those steps count. The last
    batch of a pass over labelled films may be smaller; none is left out. A site with fewer films than a batch has
    batches of all it has.
    """
    labelled, unlabelled = view.labelled, view.unlabelled
    if not unlabelled:
        size = min(local.batch_size, labelled)
        steps = _steps(local, labelled, size)
        return Order(steps, list(enumerate(batches(labelled, size, steps, weights, generator))))
    size = min(local.batch_size, unlabelled)
    steps = _steps(local, unlabelled, size)
    drawn = [chosen + labelled for chosen in batches(unlabelled, size, steps, None, generator)]
    before = (schedule.round - 1) * steps
    bursts = [_due(before + i, steps * schedule.rounds, size, labelled, local, correction) for i in range(steps)]
    extra = iter(_labelled(sum(bursts), labelled, local, correction, weights, generator))
    ordered: list[tuple[int, Tensor]] = []
    for i, chosen in enumerate(drawn):
        ordered.append((i, chosen))
        for _ in range(bursts[i]):
            ordered += [(i, part) for part in next(extra)]
    return Order(steps, ordered)


def _steps(local: LoopConfig, items: int, size: int) -> int:
    if local.steps is not None:
        return local.steps
    return max(1, math.ceil(local.epochs * items / size - 1e-9))


def _due(step: int, steps: int, size: int, labelled: int, local: LoopConfig, correction: Correction) -> int:
    """Bursts due after unlabelled step ``step`` of the phase's ``steps``."""
    if not labelled:
        return 0
    if correction.every is not None:
        enough = (steps - 1) // correction.every >= correction.least
        period = correction.every if enough else max(1, steps // (correction.least + 1))
        return int(step > 0 and step % period == 0)
    if correction.ratio is None:
        return 0
    unit = labelled if correction.burst == "pass" else min(local.batch_size, labelled)
    shown = lambda done: math.floor(correction.ratio * size * done / unit + 1e-9)
    return shown(step + 1) - shown(step)


def _labelled(
    bursts: int,
    labelled: int,
    local: LoopConfig,
    correction: Correction,
    weights: Tensor | None,
    generator: torch.Generator,
) -> list[list[Tensor]]:
    """The labelled batches of each burst, in a new order each pass."""
    size = min(local.batch_size, labelled)
    if correction.every is not None or correction.burst == "pass":
        passes = [next(batches(labelled, labelled, 1, weights, generator)) for _ in range(bursts)]
        return [list(chosen.split(size)) for chosen in passes]
    return [[chosen] for chosen in batches(labelled, size, bursts, weights, generator)] if bursts else []
