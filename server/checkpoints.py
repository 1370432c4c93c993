"""One checkpoint of a run, opened from the run's folder or from its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from models.config import ConfigError, build
from strategies.plan import RunConfig


class NoCheckpoint(ValueError):
    """The path names no checkpoint that can be opened. The text says why and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint of a run: its folder, the run's own, the plan, and what ``state.json`` says."""

    folder: Path
    run: Path
    plan: RunConfig
    state: dict[str, Any]

    @property
    def model(self) -> Path:
        """The federation's model."""
        return self.folder / "model.safetensors"


def open_checkpoint(path: Path) -> Checkpoint:
    """A run's folder (its last checkpoint), one of its checkpoints, or the model file in one.

    Raises:
        NoCheckpoint: none of these, a run without a checkpoint, or one whose ``run.yaml`` cannot be read.
    """
    path = path.expanduser().resolve()
    path = path.parent if path.name == "model.safetensors" else path
    if (path / "run.yaml").is_file():
        found = sorted((path / "checkpoints").glob("round-????"))
        if not found:
            raise NoCheckpoint(f"{path}: the run has no checkpoint yet")
        run, folder = path, found[-1]
    elif (path.parent.parent / "run.yaml").is_file():
        run, folder = path.parent.parent, path
        if not (path / "state.json").is_file():
            has = ", ".join(c.name for c in sorted(path.parent.glob("round-????"))) or "none"
            raise NoCheckpoint(f"{path}: no such checkpoint; the run has: {has}")
    else:
        raise NoCheckpoint(f"{path}: neither a run folder nor one of its checkpoints; `fedcxr-server runs` lists runs")
    try:
        about = yaml.safe_load((run / "run.yaml").read_text(encoding="utf-8"))
        plan = build(RunConfig, about["config"])
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except (ConfigError, KeyError, TypeError, ValueError, OSError, yaml.YAMLError) as error:
        raise NoCheckpoint(f"{run}: its run.yaml does not describe the model ({error})") from None
    return Checkpoint(folder, run, plan, state)
