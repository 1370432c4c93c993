"""From what a user types (``flwr run . --run-config "..."``) to a resolved plan with absolute folders."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from models.config import ConfigError, unknown_key
from strategies.code import ROOT
from strategies.plan import RunConfig, load_run

KEYS = ("config", "data", "out", "seed", "rounds", "set", "run", "resume")


@dataclass(frozen=True)
class Launch:
    """A resolved plan. ``data`` is None where the run generates or brings its own."""

    plan: RunConfig
    data: Path | None
    out: Path


def find_config(name: str) -> Path:
    """A run YAML by absolute path, or relative to the project (or bundle) root.

    Raises:
        ConfigError: no such file; the text lists the shipped ones.
    """
    path = Path(name).expanduser()
    for candidate in [path] if path.is_absolute() else [ROOT / path, ROOT / "configs" / "runs" / f"{name}.yaml"]:
        if candidate.is_file():
            return candidate
    shipped = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "configs" / "runs").glob("*.yaml"))
    raise ConfigError(f"config {name!r}: no such file; give an absolute path or one of {', '.join(shipped)}")


def overrides_of(run_config: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted overrides of a run configuration: ``seed``, ``rounds`` (of every phase) and ``set`` ("a.b=1; c=x")."""
    out: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in str(run_config.get("set", "")).split(";"))):
        dotted, sign, text = part.partition("=")
        if not sign:
            raise ConfigError(f"set {part!r}: expected key=value, several separated by ';'")
        out[dotted.strip()] = yaml.safe_load(text)
    if int(run_config.get("seed", -1)) >= 0:
        out["seed"] = int(run_config["seed"])
    return out


def launch(run_config: Mapping[str, Any]) -> Launch:
    """Resolve the flat values of a Flower run configuration.

    Raises:
        ConfigError: with every mistake in the YAML, or a data folder that is missing or superfluous.
    """
    for key in run_config:
        if key not in KEYS:
            raise ConfigError(unknown_key(key, key, list(KEYS)))
    path = find_config(str(run_config.get("config", "configs/runs/phantom.yaml")))
    overrides = overrides_of(run_config)
    rounds = int(run_config.get("rounds", -1))
    if rounds >= 0:
        phases = load_run(path, overrides).phases
        overrides |= {f"phases.{i}.rounds": rounds for i in range(len(phases))}
    plan = load_run(path, overrides)
    out = Path(str(run_config.get("out") or os.environ.get("FEDCXR_OUT") or Path.home() / "fedcxr-runs")).expanduser()
    if not out.is_absolute():
        raise ConfigError(f"out {str(out)!r}: give an absolute folder; the run's processes work elsewhere")
    return Launch(plan=plan, data=_data(plan, str(run_config.get("data", ""))), out=out)


def _data(plan: RunConfig, text: str) -> Path | None:
    simulation = plan.simulation
    needed = simulation is not None and simulation.phantom is None
    if not text:
        if needed:
            raise ConfigError("data: missing; this plan reads images from a folder: data='/absolute/folder'")
        return None
    if not needed:
        raise ConfigError(f"data {text!r} and a plan that {'generates its patients' if simulation else 'has real sites'}: "
                          f"leave data away, or choose a plan that imports")
    path = Path(text).expanduser()
    if not path.is_absolute():
        raise ConfigError(f"data {text!r}: give an absolute folder; the run's processes work elsewhere")
    if not path.is_dir():
        raise ConfigError(f"data {text!r}: no such folder")
    return path
