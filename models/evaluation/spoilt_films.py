"""What a model still knows of films that are spoilt: by noise, blur, contrast or brightness.

A film is spoilt in one way for every model, arm and run: its noise is drawn by the film's key in the store, whatever
batch it comes in, and a strength only scales that one draw, so that a curve is not ragged by chance. What comes out has
the 256 grey levels that a stored film has.

    evaluation:
      robustness: {noise: [0.05, 0.1], blur: [0.01], contrast: [0.5, 2], brightness: [-0.2, 0.2]}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from models.config import ConfigError, config
from models.evaluation.diagnosis import probabilities
from models.model import CxrModel
from models.objectives import Objective
from models.randomness import stream
from models.studies.augment import to_float
from models.studies.crops import blur
from models.studies.views import ImageBatch

Kind = Literal["noise", "blur", "contrast", "brightness"]
KINDS: tuple[Kind, ...] = get_args(Kind)

UNTOUCHED: dict[Kind, float] = {"noise": 0.0, "blur": 0.0, "contrast": 1.0, "brightness": 0.0}
"""The strength of each kind that leaves a film as it is."""

_ALLOWED = {"noise": (0.0, 1.0), "blur": (0.0, 0.25), "contrast": (0.0, 10.0), "brightness": (-1.0, 1.0)}


@config
class Robustness:
    """Strengths to judge at, beside the untouched film, which is always judged. An empty list leaves a kind out.

    noise: standard deviation of gaussian noise, independent for each pixel of the model's input.
    blur: sigma of a gaussian blur, as share of the film's side: the same sharpness is lost at any input size.
    contrast: factor on the distance from the film's mean; 1 is untouched, 0 a flat film.
    brightness: what is added to every pixel.

    White is 1 and black 0; what lies beyond is cut off.
    """

    noise: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2)
    blur: tuple[float, ...] = (0.005, 0.01, 0.02, 0.04)
    contrast: tuple[float, ...] = (0.25, 0.5, 0.75, 1.5, 2.0)
    brightness: tuple[float, ...] = (-0.3, -0.15, 0.15, 0.3)

    def check(self) -> None:
        if not any(getattr(self, kind) for kind in KINDS):
            raise ConfigError(f"{', '.join(KINDS)}: all empty; give strengths, or leave robustness out")
        for kind in KINDS:
            for strength in getattr(self, kind):
                _require(kind, strength)

    def strengths(self, kind: Kind) -> tuple[float, ...]:
        """Rising, with the untouched one; empty where the kind is left out."""
        given = getattr(self, kind)
        return tuple(sorted({*given, UNTOUCHED[kind]})) if given else ()


def _require(kind: str, strength: float) -> None:
    low, high = _ALLOWED[kind]
    if not low <= strength <= high:
        raise ConfigError(f"{kind} {strength}: must be in [{low:g}, {high:g}]")


def spoil(films_N1SS: Tensor, kind: Kind, strength: float, names: Sequence[str], seed: int = 0) -> Tensor:
    """Films in [0,1], spoilt and cut off at 0 and 1; the very same tensor at the untouched strength.

    Args:
        kind, strength: see :class:`Robustness`.
        names: what identifies each film; its noise hangs on its name and ``seed`` alone.

    Raises:
        ConfigError: a strength that is not allowed.
    """
    _require(kind, strength)
    if strength == UNTOUCHED[kind]:
        return films_N1SS
    if kind == "noise":
        out = films_N1SS + strength * _noise(films_N1SS, names, seed)
    elif kind == "blur":
        sigma = films_N1SS.new_full((len(films_N1SS),), strength * films_N1SS.shape[-1])
        out = blur(films_N1SS, sigma)
    elif kind == "contrast":
        mean = films_N1SS.mean(dim=(1, 2, 3), keepdim=True)
        out = mean + strength * (films_N1SS - mean)
    else:
        out = films_N1SS + strength
    return out.clamp(0, 1)


def _noise(films_N1SS: Tensor, names: Sequence[str], seed: int) -> Tensor:
    shape = films_N1SS.shape[1:]
    drawn = [torch.randn(shape, generator=stream(seed, "spoilt film", name)) for name in names]
    return torch.stack(drawn).to(films_N1SS) if drawn else films_N1SS


class SpoiltView:
    """A view of films, each spoilt as it is fetched; labels, patients and order are those of ``view``."""

    def __init__(self, view: Any, kind: Kind, strength: float) -> None:
        self.view, self.kind, self.strength = view, kind, strength
        self.labels, self.patients, self.rows, self.findings = view.labels, view.patients, view.rows, view.findings
        self._names = view.store.strings("image")[view.rows]

    def __len__(self) -> int:
        return len(self.view)

    def batch(self, indices: Any) -> ImageBatch:
        """The view's batch with spoilt films, uint8 as ever."""
        batch = self.view.batch(indices)
        if self.strength == UNTOUCHED[self.kind]:
            return batch
        films = spoil(to_float(batch.images), self.kind, self.strength, self._names[np.asarray(indices)])
        return dataclasses.replace(batch, images=(films * 255).round_().byte())


def scores_under(
    model: CxrModel,
    objective: Objective,
    view: Any,
    kind: Kind,
    strength: float,
    device: torch.device,
    batch_size: int = 128,
) -> np.ndarray:
    """Probability of each finding, float32 [N,F], for the films of ``view`` spoilt by ``kind`` at ``strength``."""
    return probabilities(model, objective, SpoiltView(view, kind, strength), device, batch_size)
