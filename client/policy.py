"""The site's own rules. A run can ask; only this file can allow, and no message can change it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.config import ConfigError, build, config, read_yaml
from strategies.messages import Ask, Code, Kind, Refusal

if TYPE_CHECKING:
    from models.loop import LoopConfig  # brings torch, which half of the commands can do without


@config
class Policy:
    """What this site allows. The defaults suit a simulation of public data; a hospital writes its own.

    objectives, components: names that may be trained, ``"*"`` for any (components: ``head.*`` style patterns are not
    read, name them). runs: run ids that may ask, empty for any. min_cell: fewest positives and negatives behind any
    reported number. max_*: limits of one round.
    """

    objectives: tuple[str, ...] = ("*",)
    components: tuple[str, ...] = ("*",)
    runs: tuple[str, ...] = ()
    min_cell: int = 5
    max_epochs: float = 100.0
    max_steps: int = 100_000
    max_reply_mb: float = 4096.0

    def check(self) -> None:
        if self.min_cell < 1:
            raise ConfigError(f"min_cell {self.min_cell}: at least 1")
        for name in ("max_epochs", "max_steps", "max_reply_mb"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} {getattr(self, name)}: must be positive")


def load_policy(path: Path) -> Policy:
    """Read a policy YAML; see configs/sites/policy.yaml for every key."""
    return build(Policy, read_yaml(path), where=path.name)


def consent(policy: Policy, ask: Ask, objective: Any, local: LoopConfig) -> Refusal | None:
    """None when the policy allows this ask, else why not."""
    if policy.runs and ask.run not in policy.runs:
        return Refusal(Code.POLICY, "this run is not on the site's list of runs")
    if "*" not in policy.objectives and objective.cfg.name not in policy.objectives:
        return Refusal(Code.POLICY, f"objective {objective.cfg.name!r} is not allowed here")
    odd = [c for c in ask.components if "*" not in policy.components and c not in policy.components]
    if odd:
        return Refusal(Code.POLICY, f"component {odd[0]!r} may not leave this site")
    if ask.privacy and objective.privacy is None:
        return Refusal(
            Code.PRIVACY, f"objective {objective.cfg.name!r} has no sound private recipe: {objective.no_privacy}"
        )
    if ask.kind is Kind.TRAIN:
        if local.epochs is not None and local.epochs > policy.max_epochs:
            return Refusal(Code.POLICY, f"{local.epochs:g} epochs a round; this site allows {policy.max_epochs:g}")
        if local.steps is not None and local.steps > policy.max_steps:
            return Refusal(Code.POLICY, f"{local.steps} steps a round; this site allows {policy.max_steps}")
    unknown_numbers = [v for v in (local.epochs, local.lr) if v is not None and not math.isfinite(v)]
    if unknown_numbers:
        return Refusal(Code.BAD_REQUEST, "a training setting is not a finite number")
    return None
