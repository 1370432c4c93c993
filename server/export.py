"""``fedcxr-server export``: the text tower of a run as a plain Hugging Face folder, adapters and folds merged in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from models.checkpoint import load, write_atomically
from models.config import ConfigError, build
from models.text.encoder import TextEncoder
from server.adapters import read_folds
from strategies.plan import RunConfig

ABOUT = "export.json"
"""Beside the model: which run and round it is, and how its vectors are pooled."""


class NotExported(ValueError):
    """The checkpoint cannot be exported. The text says why and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint of a run: its folder, the run's own, the plan, and what ``state.json`` says."""

    folder: Path
    run: Path
    plan: RunConfig
    state: dict[str, Any]


def open_checkpoint(path: Path) -> Checkpoint:
    """A run's folder (its last checkpoint) or one of its checkpoints.

    Raises:
        NotExported: neither, or a run whose ``run.yaml`` cannot be read.
    """
    path = path.expanduser().resolve()
    if (path / "run.yaml").is_file():
        found = sorted((path / "checkpoints").glob("round-????"))
        if not found:
            raise NotExported(f"{path}: the run has no checkpoint yet")
        run, folder = path, found[-1]
    elif (path.parent.parent / "run.yaml").is_file() and (path / "state.json").is_file():
        run, folder = path.parent.parent, path
    else:
        raise NotExported(f"{path}: neither a run folder nor one of its checkpoints; `fedcxr-server runs` lists runs")
    try:
        about = yaml.safe_load((run / "run.yaml").read_text(encoding="utf-8"))
        plan = build(RunConfig, about["config"])
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except (ConfigError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise NotExported(f"{run}: its run.yaml does not describe the model ({error})") from None
    return Checkpoint(folder, run, plan, state)


def text_tower(checkpoint: Checkpoint) -> TextEncoder:
    """The text tower of the federation's model as it was at the checkpoint, in evaluation mode.

    Raises:
        NotExported: no text tower, or one on other weights than the run's.
    """
    plan, folder = checkpoint.plan, checkpoint.folder
    if plan.model.text is None:
        raise NotExported(f"{checkpoint.run}: the run has no text tower; there is nothing that transformers could load")
    try:
        model = plan.new_model()
        tensors, memory = load(folder / "model.safetensors"), load(folder / "server.safetensors")
        wanted = checkpoint.state.get("adapters")
        if wanted:
            if model.text.base_hash != wanted["base"]:
                raise NotExported(
                    f"{folder}: its adapters belong to the base {wanted['base'][:12]}..., and the plan's source is "
                    f"{model.text.base_hash[:12]}... here; put the same weights there"
                )
            prefix = "federated|memory|"
            own = {key.removeprefix(prefix): value for key, value in memory.items() if key.startswith(prefix)}
            model.text.rebase(read_folds(own))
            if model.text.base_head != wanted["head"]:
                raise NotExported(
                    f"{folder}: its folds do not lead to the base that it names; the checkpoint is damaged"
                )
        model.load(None, tensors)
    except (ConfigError, ValueError) as error:
        raise error if isinstance(error, NotExported) else NotExported(f"{folder}: {error}") from None
    return model.eval().text


def export(path: Path, out: Path) -> dict[str, Any]:
    """Write the text tower of the checkpoint ``path`` to the new folder ``out``: weights (safetensors, the adapters merged
    in), configuration and tokenizer, which ``AutoModel`` and ``AutoTokenizer`` load; pooling and projection beside them.

    Returns what ``export.json`` says.

    Raises:
        NotExported: the checkpoint cannot be exported, or ``out`` holds something already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise NotExported(f"{out}: is not empty; name a new folder")
    checkpoint = open_checkpoint(path)
    tower = text_tower(checkpoint)
    tower.save(out)
    text = checkpoint.plan.model.text
    about = {
        "run": checkpoint.run.name,
        "round": checkpoint.state["round"],
        "phase": checkpoint.state["phase"],
        "config_hash": checkpoint.state["config_hash"],
        "base_sha256": tower.base_hash,
        "base_head": tower.base_head,
        "pooling": text.pooling,
        "pooled": text.pooled,
        "width": tower.width,
        "max_tokens": text.max_tokens,
    }
    write_atomically(out / ABOUT, json.dumps(about, indent=1).encode())
    return about
