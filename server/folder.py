"""The run folder (DESIGN section 4): everything a run leaves behind. The report and the dashboard read this, nothing else.

run.yaml        resolved config, versions, sites, status
metrics.jsonl   one line per phase, round, cohort, site, finding and metric
events.jsonl    refusals, deadlines, quorum, resumption
checkpoints/    round-NNNN/{model,server}.safetensors + state.json
results.json    written last: its status is what says that a run succeeded
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from models.checkpoint import load, save, write_atomically
from models.config import ConfigError, to_plain
from models.evaluation.delong import DELONG
from models.evaluation.protocol import METRICS
from models.evaluation.textual import METRICS as QUESTIONS
from strategies.code import code_hash
from strategies.plan import RunConfig

VERSIONS = ("fedcxr", "torch", "flwr", "numpy", "kornia", "pyarrow", "safetensors", "pydantic")


def of_received(metric: str) -> bool:
    """Whether a site measured ``metric`` on the model that it received, which is the end of the round before."""
    return metric.removeprefix("teacher_") in (*METRICS, *QUESTIONS, *DELONG)


def now() -> str:
    """UTC time, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def new_run_id(name: str) -> str:
    """Readable, sortable, unique on a machine: ``20261122-101530-a1b2-name``."""
    word = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()[:24] or "run"
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.urandom(2).hex()}-{word}"


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


class RunFolder:
    """Writes one run's folder. Lines are appended whole; files that are replaced are replaced whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._about: dict[str, Any] = {}

    @classmethod
    def create(cls, path: Path, plan: RunConfig) -> RunFolder:
        """A new folder with ``run.yaml``. Raises FileExistsError if there is one already."""
        path.mkdir(parents=True)
        folder = cls(path)
        folder.describe(
            run=path.name,
            name=plan.name,
            started=now(),
            finished=None,
            status="running",
            config=to_plain(plan),
            config_hash=plan.hash,
            code_hash=code_hash(),
            versions=versions(),
            sites=[],
        )
        return folder

    @classmethod
    def reopen(cls, path: Path, plan: RunConfig) -> RunFolder:
        """The folder of an interrupted run, to resume it.

        Raises:
            ConfigError: no such run, a finished one, or one of another configuration.
        """
        about = path / "run.yaml"
        if not about.is_file():
            raise ConfigError(f"resume {path.name!r}: no such run in {path.parent}")
        folder = cls(path)
        folder._about = yaml.safe_load(about.read_text(encoding="utf-8"))
        if folder._about.get("status") == "completed":
            raise ConfigError(f"resume {path.name!r}: this run is completed; start a new one")
        if folder._about.get("config_hash") != plan.hash:
            raise ConfigError(
                f"resume {path.name!r}: its configuration differs from the one given now; "
                f"resume with the same config, data, seed and overrides"
            )
        folder.describe(status="running", finished=None)
        return folder

    @property
    def about(self) -> dict[str, Any]:
        """What ``run.yaml`` says now."""
        return yaml.safe_load((self.path / "run.yaml").read_text(encoding="utf-8"))

    def describe(self, **values: Any) -> None:
        """Set top-level keys of ``run.yaml``."""
        self._about |= values
        text = yaml.safe_dump(self._about, sort_keys=False, allow_unicode=True)
        write_atomically(self.path / "run.yaml", text.encode())

    def metric(self, **line: Any) -> None:
        self._append("metrics.jsonl", line)

    def event(self, event: str, *, round: int = 0, site: str | None = None, code: str = "", text: str = "") -> None:
        line = {"time": now(), "round": round, "event": event, "site": site, "code": code, "text": text}
        self._append("events.jsonl", line)

    def _append(self, name: str, line: dict[str, Any]) -> None:
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Whole lines of a JSONL file; a torn last line is left out."""
        path = self.path / name
        if not path.exists():
            return []
        texts = path.read_text(encoding="utf-8").split("\n")
        return [json.loads(text) for text in texts[:-1] if text]

    def checkpoint(
        self, number: int, model: Mapping[str, Tensor], server: Mapping[str, Tensor], state: dict[str, Any], keep: int
    ) -> None:
        """Write ``checkpoints/round-NNNN`` under a temporary name, then rename it; keep the last ``keep`` (0: all)."""
        root = self.path / "checkpoints"
        temporary, final = root / f".round-{number:04d}.tmp", root / f"round-{number:04d}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save(temporary / "model.safetensors", model)
        save(temporary / "server.safetensors", server)
        write_atomically(temporary / "state.json", json.dumps(state, indent=1).encode())
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
        for old in self.checkpoints()[:-keep] if keep else []:
            shutil.rmtree(old)

    def checkpoints(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        return sorted((self.path / "checkpoints").glob("round-????"))

    def last_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]] | None:
        """Model, server memory and state of the last whole checkpoint, or None."""
        found = self.checkpoints()
        if not found:
            return None
        state = json.loads((found[-1] / "state.json").read_text(encoding="utf-8"))
        return load(found[-1] / "model.safetensors"), load(found[-1] / "server.safetensors"), state

    def forget_after(self, plan: RunConfig, phase: str, number: int) -> None:
        """Drop metric lines of what comes after round ``number`` of ``phase``: it is about to be made again."""
        order = {p.name: i for i, p in enumerate(plan.phases)}
        kept = [x for x in self.lines("metrics.jsonl") if (order[x["phase"]], x["round"]) <= (order[phase], number)]
        # Sites measure a model on arrival, in the round after: those lines will come again too.
        kept = [
            x
            for x in kept
            if x["site"] == "central"
            or not of_received(x["metric"])
            or (order[x["phase"]], x["round"]) < (order[phase], number)
        ]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_atomically(self.path / "metrics.jsonl", text.encode())

    def finish(self, status: str, **values: Any) -> None:
        """Write ``results.json`` and close ``run.yaml`` with ``status``."""
        self.describe(status=status, finished=now())
        results = {"run": self.path.name, "status": status, **values}
        write_atomically(self.path / "results.json", json.dumps(results, indent=1, allow_nan=False).encode())
