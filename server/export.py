"""``fedcxr-server export``: the text tower of a run as a plain Hugging Face folder, adapters and folds merged in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models.checkpoint import load, write_atomically
from models.config import ConfigError
from models.text.encoder import TextEncoder
from server.adapters import read_folds
from server.checkpoints import Checkpoint, NoCheckpoint, open_checkpoint

ABOUT = "export.json"
"""Beside the model: which run and round it is, and how its vectors are pooled."""


class NotExported(ValueError):
    """The checkpoint cannot be exported. The text says why and what to do."""


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
        tensors, memory = load(checkpoint.model), load(folder / "server.safetensors")
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
    try:
        checkpoint = open_checkpoint(path)
    except NoCheckpoint as error:
        raise NotExported(str(error)) from None
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
