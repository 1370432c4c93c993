"""The one local loop: trains an objective on a view for one round. Hospitals and baselines use this same code.

Optimiser state starts anew each round, as in federated averaging; ramps follow the whole run (``Schedule``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.config import ConfigError, config
from models.evaluation.results import Result
from models.objectives import Objective, Order, Schedule
from models.randomness import stream, stream_seed


class NonFiniteLoss(ArithmeticError):
    """The loss became NaN or infinite; the model holds garbage from here on."""


@config
class LoopConfig:
    """How a site trains in one round. Give ``epochs`` or ``steps``, not both."""

    epochs: float | None = None
    steps: int | None = None
    batch_size: int = 32
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    momentum: float = 0.9
    """SGD only."""
    warmup: float = 0.0
    """Rounds over which the learning rate climbs from 0; may be a fraction."""
    decay: Literal["constant", "cosine"] = "cosine"
    min_lr: float = 0.0
    """Where the cosine ends."""
    clip_norm: float = 1.0
    """Largest gradient norm; 0 for none."""
    clip: Literal["all", "each"] = "all"
    """Whether the norm is that of all gradients together or of each parameter tensor."""
    precision: Literal["float32", "bfloat16", "float16", "auto"] = "auto"
    """auto: bfloat16 on an accelerator that has it, else float32."""
    compile: bool = False
    threads: int = 0
    """CPU threads; 0 leaves them as they are."""

    def check(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ConfigError(f"epochs {self.epochs} and steps {self.steps}: give exactly one of the two")
        for name in ("epochs", "steps", "batch_size", "lr"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} {value}: must be positive")
        for name in ("weight_decay", "warmup", "clip_norm", "momentum", "threads", "min_lr"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} {getattr(self, name)}: must not be negative")
        if self.min_lr > self.lr:
            raise ConfigError(
                f"min_lr {self.min_lr} and lr {self.lr}: the rate falls to min_lr, which must be the lower"
            )

    def steps_for(self, items: int) -> int:
        """Optimiser steps of one round on ``items`` training items."""
        if self.steps is not None:
            return self.steps
        # Less a hair, because 1.1 epochs of 10 items are 11.000000000000002 items in binary.
        return max(1, math.ceil(self.epochs * items / self.batch_size - 1e-9))


@dataclass(frozen=True)
class Trained:
    """What one round of local training did. losses: mean over the steps that had the loss; notes: what the objective
    has to say of the round."""

    steps: int
    items: int
    losses: dict[str, float]
    seconds: float
    notes: tuple[Result, ...] = ()


def learning_rate(cfg: LoopConfig, schedule: Schedule) -> float:
    """Warm-up, then constant or cosine to ``min_lr`` over the rest of the phase, at this step's middle."""
    elapsed = schedule.elapsed + 0.5 / schedule.steps
    if elapsed < cfg.warmup:
        return cfg.lr * elapsed / cfg.warmup
    if cfg.decay == "constant":
        return cfg.lr
    done = (elapsed - cfg.warmup) / max(schedule.rounds - cfg.warmup, 1e-9)
    return cfg.min_lr + (cfg.lr - cfg.min_lr) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def batches(
    items: int, batch_size: int, steps: int, weights: Tensor | None, generator: torch.Generator
) -> Iterator[Tensor]:
    """Item numbers [batch_size] of each step.

    Without weights every item comes once before any comes twice; with weights, draws are with replacement.
    """
    count = steps * batch_size
    if weights is not None:
        order = torch.multinomial(weights, count, replacement=True, generator=generator)
    else:
        passes = [torch.randperm(items, generator=generator) for _ in range(math.ceil(count / items))]
        order = torch.cat(passes)[:count]
    yield from order.split(batch_size)


def pick_precision(wish: str, device: torch.device) -> torch.dtype | None:
    """Autocast dtype, or None for plain float32."""
    if wish == "float32":
        return None
    if wish == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else None
    return getattr(torch, wish)


def train(
    model: nn.Module,
    objective: Objective,
    view: Any,
    cfg: LoopConfig,
    *,
    round: int,
    rounds: int,
    seed: int,
    names: tuple[str | int, ...],
    device: torch.device,
    proximal_mu: float = 0.0,
    kept: Collection[str] = (),
    frozen: Collection[str] = (),
    min_cell: int = 1,
    on_step: Callable[[int, int], None] | None = None,
) -> Trained:
    """Train ``model`` in place on ``view`` for round ``round`` (1-based) of ``rounds``.

    ``names`` is the stream of this round's randomness, e.g. (phase, round, site). ``proximal_mu`` adds the gradient of
    mu/2 * ||w - w_start||^2 (FedProx) to what travels. ``kept``: the ``site.`` components that hold what
    an earlier round left. ``frozen``: names ``component/parameter`` that this round leaves alone. ``min_cell``: fewest
    patients that a note may speak of. The objective's ``site.`` components
    must stand in ``model`` (``models.model.furnish``).

    Raises:
        NonFiniteLoss: the loss became NaN or infinite.
    """
    began = time.perf_counter()
    trained = model.components()
    here = tuple(getattr(objective, "trains_here", ()))
    model.eval().requires_grad_(False)
    for name in (*objective.trains, *here):
        trained[name].train().requires_grad_(True)
    for name in objective.trains:
        for key, p in trained[name].named_parameters():
            p.requires_grad_(f"{name}/{key}" not in frozen)
    # What travels first: the proximal term holds on to that alone.
    travelling = [p for name in objective.trains for p in trained[name].parameters() if p.requires_grad]
    parameters = [*travelling, *(p for name in here for p in trained[name].parameters())]
    start = [p.detach().clone() for p in travelling] if proximal_mu else []
    optimizer = _optimizer(cfg, parameters)
    dtype = pick_precision(cfg.precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16 and device.type == "cuda")
    step_fn = torch.compile(objective.step) if cfg.compile else objective.step
    autocast = lambda: torch.autocast(device.type, dtype) if dtype else nullcontext()
    order = _order(objective, view, cfg, Schedule(round, rounds, 0, 1), stream(seed, *names, "order"))
    tally = _Tally()
    devices = [device] if device.type == "cuda" else []
    # Augmentation and dropout draw from the global generator: seed it for this round, give the old one back after.
    with torch.random.fork_rng(devices=devices), _threads(cfg.threads):
        torch.manual_seed(stream_seed(seed, *names, "augment"))
        if hasattr(objective, "begin"):
            objective.begin(model, Schedule(round, rounds, 0, order.steps), kept)
        for index, (at, chosen) in enumerate(order.batches):
            schedule = Schedule(round=round, rounds=rounds, step=at, steps=order.steps)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(cfg, schedule)
            batch = view.batch(chosen).to(device)
            optimizer.zero_grad(set_to_none=True)
            with autocast():
                losses = step_fn(model, batch, schedule)
            for part in _parts(losses, autocast):
                total = sum(value for name, value in part.items() if name.endswith("_loss"))
                scaler.scale(total).backward()
                tally.add(part)
            tally.end_of_step()
            scaler.unscale_(optimizer)
            for p, p0 in zip(travelling, start):
                if p.grad is not None:
                    p.grad.add_(p.detach() - p0, alpha=proximal_mu)
            if cfg.clip_norm:
                _clip(cfg, parameters)
            scaler.step(optimizer)
            scaler.update()
            if hasattr(objective, "after_step"):
                objective.after_step(model, batch, schedule)
            # A look at the sum costs a wait for the accelerator, so not at every step.
            if index % 50 == 49:
                tally.check(index + 1)
            if on_step is not None:
                on_step(index + 1, len(order.batches))
    tally.check(len(order.batches))
    notes = tuple(objective.notes(view, min_cell)) if hasattr(objective, "notes") else ()
    return Trained(
        steps=len(order.batches),
        items=len(view),
        losses=tally.means(),
        seconds=time.perf_counter() - began,
        notes=notes,
    )


def _order(objective: Objective, view: Any, cfg: LoopConfig, schedule: Schedule, generator: torch.Generator) -> Order:
    if hasattr(objective, "order"):
        return objective.order(view, cfg, schedule, generator)
    steps = cfg.steps_for(len(view))
    drawn = batches(len(view), cfg.batch_size, steps, objective.weights(view), generator)
    return Order(steps, list(enumerate(drawn)))


def _parts(losses: Any, autocast: Callable[[], Any]) -> Iterator[dict[str, Tensor]]:
    """The losses of a step part by part; each part is computed under autocast, and its gradient is not."""
    if isinstance(losses, Mapping):
        yield losses
        return
    while True:
        with autocast():
            part = next(losses, None)
        if part is None:
            return
        yield part


def _clip(cfg: LoopConfig, parameters: list[Tensor]) -> None:
    if cfg.clip == "all":
        nn.utils.clip_grad_norm_(parameters, cfg.clip_norm)
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    factors = [(cfg.clip_norm / (norm + 1e-6)).clamp(max=1) for norm in torch._foreach_norm(gradients)]
    torch._foreach_mul_(gradients, factors)


class _Tally:
    """Sums of the reported values, kept on the device: the parts of a step add up, steps are averaged."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._in_step: set[str] = set()

    def add(self, part: Mapping[str, Tensor]) -> None:
        for name, value in part.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._in_step.add(name)

    def end_of_step(self) -> None:
        for name in self._in_step:
            self._counts[name] = self._counts.get(name, 0) + 1
        self._in_step.clear()

    def check(self, steps: int) -> None:
        """Raises NonFiniteLoss if a sum is not finite."""
        for name, value in self._sums.items():
            if not math.isfinite(float(value)):
                raise NonFiniteLoss(f"{name} is not finite within the first {steps} steps; lower lr or set clip_norm")

    def means(self) -> dict[str, float]:
        return {name: float(value) / self._counts[name] for name, value in self._sums.items()}


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _tokens(p: Tensor) -> bool:
    """Whether ``p`` is a token or a table of positions [1,n,D]."""
    return p.ndim == 3 and p.shape[0] == 1


def _optimizer(cfg: LoopConfig, parameters: list[Tensor]) -> torch.optim.Optimizer:
    # Biases, norms and tokens are not decayed: shrinking them regularises nothing (Goyal et al. 2017).
    decayed = [p for p in parameters if p.ndim >= 2 and not _tokens(p)]
    plain = [p for p in parameters if p.ndim < 2 or _tokens(p)]
    groups = [{"params": decayed, "weight_decay": cfg.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    if cfg.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=cfg.lr, momentum=cfg.momentum)
    return torch.optim.AdamW(groups, lr=cfg.lr, fused=True)
