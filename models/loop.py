"""The one local loop: trains an objective on a view for one round. Hospitals and baselines use this same code.

Optimiser state starts anew each round, as in federated averaging; ramps follow the whole run (``Schedule``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.config import ConfigError, config
from models.objectives import Objective, Schedule
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
    clip_norm: float = 1.0
    """Largest gradient norm; 0 for none."""
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
        for name in ("weight_decay", "warmup", "clip_norm", "momentum", "threads"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} {getattr(self, name)}: must not be negative")

    def steps_for(self, items: int) -> int:
        """Optimiser steps of one round on ``items`` training items."""
        if self.steps is not None:
            return self.steps
        # Less a hair, because 1.1 epochs of 10 items are 11.000000000000002 items in binary.
        return max(1, math.ceil(self.epochs * items / self.batch_size - 1e-9))


@dataclass(frozen=True)
class Trained:
    """What one round of local training did. losses: mean over its steps."""

    steps: int
    items: int
    losses: dict[str, float]
    seconds: float


def learning_rate(cfg: LoopConfig, schedule: Schedule) -> float:
    """Warm-up, then constant or cosine to 0 over the rest of the phase, at this step's middle."""
    elapsed = schedule.elapsed + 0.5 / schedule.steps
    if elapsed < cfg.warmup:
        return cfg.lr * elapsed / cfg.warmup
    if cfg.decay == "constant":
        return cfg.lr
    done = (elapsed - cfg.warmup) / max(schedule.rounds - cfg.warmup, 1e-9)
    return cfg.lr * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


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
    on_step: Callable[[int, int], None] | None = None,
) -> Trained:
    """Train ``model`` in place on ``view`` for round ``round`` (1-based) of ``rounds``.

    ``names`` is the stream of this round's randomness, e.g. (phase, round, site). ``proximal_mu`` adds the gradient of
    mu/2 * ||w - w_start||^2 (FedProx).

    Raises:
        NonFiniteLoss: the loss became NaN or infinite.
    """
    began = time.perf_counter()
    trained = model.components()
    parameters = [p for name in objective.trains for p in trained[name].parameters()]
    model.eval().requires_grad_(False)
    for name in objective.trains:
        trained[name].train().requires_grad_(True)
    start = [p.detach().clone() for p in parameters] if proximal_mu else []
    optimizer = _optimizer(cfg, parameters)
    dtype = pick_precision(cfg.precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16 and device.type == "cuda")
    step_fn = torch.compile(objective.step) if cfg.compile else objective.step
    steps = cfg.steps_for(len(view))
    totals: dict[str, Tensor] = {}
    order = batches(len(view), cfg.batch_size, steps, objective.weights(view), stream(seed, *names, "order"))
    devices = [device] if device.type == "cuda" else []
    # Augmentation and dropout draw from the global generator: seed it for this round, give the old one back after.
    with torch.random.fork_rng(devices=devices), _threads(cfg.threads):
        torch.manual_seed(stream_seed(seed, *names, "augment"))
        for index, chosen in enumerate(order):
            schedule = Schedule(round=round, rounds=rounds, step=index, steps=steps)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(cfg, schedule)
            batch = view.batch(chosen).to(device)
            with torch.autocast(device.type, dtype) if dtype else nullcontext():
                losses = step_fn(model, batch, schedule)
            total = sum(value for name, value in losses.items() if name.endswith("_loss"))
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(total).backward()
            scaler.unscale_(optimizer)
            for p, p0 in zip(parameters, start):
                if p.grad is not None:
                    p.grad.add_(p.detach() - p0, alpha=proximal_mu)
            if cfg.clip_norm:
                nn.utils.clip_grad_norm_(parameters, cfg.clip_norm)
            scaler.step(optimizer)
            scaler.update()
            for name, value in losses.items():
                totals[name] = totals.get(name, torch.zeros((), device=device)) + value.detach().float()
            # A look at the sum costs a wait for the accelerator, so not at every step.
            if index % 50 == 49:
                _finite(totals, index + 1)
            if on_step is not None:
                on_step(index + 1, steps)
    _finite(totals, steps)
    losses_mean = {name: float(value) / steps for name, value in totals.items()}
    return Trained(steps=steps, items=len(view), losses=losses_mean, seconds=time.perf_counter() - began)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _finite(totals: dict[str, Tensor], steps: int) -> None:
    for name, value in totals.items():
        if not math.isfinite(float(value)):
            raise NonFiniteLoss(f"{name} is not finite within the first {steps} steps; lower lr or set clip_norm")


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
