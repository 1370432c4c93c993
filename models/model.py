"""The model as named components. Whatever travels, freezes or is averaged is addressed by component.

``state`` and ``load`` speak flat names ``component/parameter``, e.g. ``vision/blocks.0.attn.qkv.weight``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator
from torch import Tensor, nn

from models.config import ConfigError, config
from models.objectives import Objective
from models.randomness import stream_seed
from models.registry import configure
from models.text.config import TextConfig

SITE = "site."
"""Components whose name begins so live at the site for good; no message may hold one."""


def _vision(values: Any) -> Any:
    return None if values is None else configure("models.vision", values)


@config
class ModelConfig:
    """Towers of the model, one or both. Heads are not listed: each objective of the run brings its own."""

    vision: Annotated[Any, BeforeValidator(_vision)] = None
    text: TextConfig | None = None

    def check(self) -> None:
        if self.vision is None and self.text is None:
            raise ConfigError("vision and text: neither is given; a model has at least one tower")


class CxrModel(nn.Module):
    """A vision tower, a text tower, or both, and the heads that the run's objectives asked for."""

    def __init__(self, vision: nn.Module | None, heads: Mapping[str, nn.Module], text: nn.Module | None = None) -> None:
        super().__init__()
        self.vision = vision
        self.text = text
        self.heads = nn.ModuleDict(heads)
        self.site = nn.ModuleDict()

    def components(self) -> dict[str, nn.Module]:
        """Component name to module: ``vision``, those of the text tower (``text_lora`` and so on), ``head.<name>`` and, at
        a site, what never leaves it: ``site.<name>``."""
        return {
            **({} if self.vision is None else {"vision": self.vision}),
            **({} if self.text is None else self.text.components()),
            **{f"head.{name}": head for name, head in self.heads.items()},
            **{f"{SITE}{name}": module for name, module in self.site.items()},
        }

    def state(self, components: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Floating-point parameters and buffers of ``components`` (all, if None), detached, sharing memory.

        Integer and boolean buffers (step counters, position ids) stay out: they carry no knowledge to combine.

        Raises:
            KeyError: an unknown component; the text lists the known ones.
        """
        found = self.components()
        wanted = list(found) if components is None else list(components)
        unknown = sorted(set(wanted) - set(found))
        if unknown:
            raise KeyError(f"no component {', '.join(unknown)}; the model has {', '.join(found)}")
        return {
            f"{name}/{key}": value.detach()
            for name in wanted
            for key, value in found[name].state_dict().items()
            if value.is_floating_point()
        }

    @torch.no_grad()
    def load(self, components: Iterable[str] | None, tensors: Mapping[str, Tensor]) -> None:
        """Copy ``tensors`` into ``components`` (all, if None); nothing is changed unless every name and shape fits.

        Raises:
            ValueError: missing or unexpected names, or another shape.
        """
        own = self.state(components)
        missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
        if missing or extra:
            raise ValueError(f"tensors do not fit the model: missing {missing[:3]}, unexpected {extra[:3]}")
        for name, value in own.items():
            if tensors[name].shape != value.shape:
                raise ValueError(f"{name}: shape {tuple(tensors[name].shape)}, the model has {tuple(value.shape)}")
        for name, value in own.items():
            value.copy_(tensors[name])


def build(cfg: ModelConfig, objectives: Iterable[Objective] = ()) -> CxrModel:
    """A freshly initialised model with the heads of ``objectives``.

    Draws from torch's global generator, so seed it for a reproducible start.

    Raises:
        ConfigError: an objective trains or reads what the model lacks.
    """
    objectives = list(objectives)
    vision = cfg.vision.build() if cfg.vision is not None else None
    text = cfg.text.build() if cfg.text is not None else None
    heads: dict[str, nn.Module] = {}
    for objective in objectives:
        if vision is None and "vision" in objective.trains:
            raise ConfigError(f"{type(objective).__name__} and no model.vision: it reads films; add a vision tower")
        for name, head in objective.heads(vision.width if vision is not None else 0).items():
            heads.setdefault(name, head)  # two phases of one objective share their head
    model = CxrModel(vision, heads, text)
    for objective in objectives:
        _check_fit(model, objective)
    return model


def _check_fit(model: CxrModel, objective: Objective) -> None:
    if hasattr(objective, "check_model"):
        objective.check_model(model)
    known = model.components()
    unknown = [name for name in objective.trains if name not in known]
    if unknown:
        raise ConfigError(
            f"{type(objective).__name__} trains {', '.join(unknown)}, which this model lacks; it has {', '.join(known)}"
        )


def initial_model(cfg: ModelConfig, objectives: Iterable[Objective], seed: int) -> CxrModel:
    """The model that the server, every site and every arm of a run start from: same seed, same numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "initial model"))
        return build(cfg, objectives)


def furnish(model: CxrModel, objective: Objective, seed: int) -> tuple[str, ...]:
    """Give ``model`` the ``site.`` components of ``objective`` that it lacks; all that the objective has are named.

    They start from the run's seed, the same at every site. An objective without such components changes nothing.
    """
    residents = getattr(objective, "residents", None)
    if residents is None:
        return ()
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "site components"))
        wanted = residents(model)
    for name, module in wanted.items():
        if name not in model.site:
            model.site[name] = module.to(device)
    return tuple(f"{SITE}{name}" for name in wanted)
