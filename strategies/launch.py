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
    """A resolved plan. ``data`` is None where the run generates or brings its own; with real sites it is the study store
    that the server trains on itself."""

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
        if dotted.strip() in out:
            raise ConfigError(f"set {dotted.strip()}: stands twice")
        try:
            out[dotted.strip()] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"set {part!r}: the value is not valid YAML") from None
    seed = _whole(run_config, "seed")
    if seed >= 0:
        if "seed" in out:
            raise ConfigError(f"seed {seed} and set seed={out['seed']}: give one of the two")
        out["seed"] = seed
    return out


def _whole(run_config: Mapping[str, Any], key: str) -> int:
    """The whole number under ``key``; -1, for "as the YAML says", if it is absent."""
    try:
        return int(run_config.get(key, -1))
    except (TypeError, ValueError):
        text = f"{key} {run_config[key]!r}: expected a whole number, or -1 for what the YAML says"
        raise ConfigError(text) from None


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
    rounds = _whole(run_config, "rounds")
    if rounds >= 0:
        of_phases = {f"phases.{i}.rounds": rounds for i in range(len(load_run(path, overrides).phases))}
        for dotted in of_phases.keys() & overrides.keys():
            raise ConfigError(f"rounds {rounds} and set {dotted}={overrides[dotted]}: give one of the two")
        overrides |= of_phases
    plan = load_run(path, overrides)
    out = Path(str(run_config.get("out") or os.environ.get("FEDCXR_OUT") or Path.home() / "fedcxr-runs")).expanduser()
    if not out.is_absolute():
        raise ConfigError(f"out {str(out)!r}: give an absolute folder; the run's processes work elsewhere")
    return Launch(plan=plan, data=_data(plan, str(run_config.get("data", ""))), out=out)


def _data(plan: RunConfig, text: str) -> Path | None:
    simulation = plan.simulation
    needed = simulation.phantom is None if simulation else any(phase.server for phase in plan.phases)
    if not text:
        if needed:
            what = "reads images from a folder" if simulation else "trains at the server, on a study store"
            raise ConfigError(f"data: missing; this plan {what}: data='/absolute/folder'")
        return None
    if not needed:
        raise ConfigError(
            f"data {text!r} and a plan that {'generates its patients' if simulation else 'has real sites'}: "
            f"leave data away, or choose a plan that imports"
        )
    path = Path(text).expanduser()
    if not path.is_absolute():
        raise ConfigError(f"data {text!r}: give an absolute folder; the run's processes work elsewhere")
    if not path.is_dir():
        raise ConfigError(f"data {text!r}: no such folder")
    return path
