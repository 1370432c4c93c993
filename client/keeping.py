"""What a site keeps of a run between rounds: tensors that do not travel, such as its norms, its teacher, its prototypes.

Each round's state is a file of its own, and the one before stays beside it: when a server resumes from its last checkpoint
it may ask for a round that this site has done already, and the answer must come from where that round began.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from models.checkpoint import load, save, write_atomically

HELD = 3
"""States kept on disk. A server that keeps two checkpoints can fall back by two rounds at most."""


class Kept:
    """The kept states of one run and cohort, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def last(self) -> dict[str, torch.Tensor]:
        """The newest state; empty if there is none."""
        entries = self._entries()
        return load(self.folder / entries[-1]["file"]) if entries else {}

    def before(self, phase: str, round: int) -> dict[str, torch.Tensor]:
        """The state with which round ``round`` of ``phase`` begins; what was kept of it or after it is forgotten."""
        entries = self._entries()
        marks = [(entry["phase"], entry["round"]) for entry in entries]
        if (phase, round) in marks:
            entries = entries[: marks.index((phase, round))]
            self._write(entries)
        return self.last()

    def put(self, phase: str, round: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep ``tensors`` as what round ``round`` of ``phase`` left; nothing is written if there are none."""
        if not tensors:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        entries = self._entries()
        number = 1 + max((int(entry["file"].split(".")[0]) for entry in entries), default=0)
        file = f"{number:06d}.safetensors"
        save(self.folder / file, tensors)
        self._write([*entries, {"phase": phase, "round": round, "file": file}][-HELD:])

    def _entries(self) -> list[dict]:
        path = self.folder / "index.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    def _write(self, entries: list[dict]) -> None:
        write_atomically(self.folder / "index.json", json.dumps(entries).encode())
        wanted = {entry["file"] for entry in entries}
        for path in self.folder.glob("??????.safetensors"):
            if path.name not in wanted:
                path.unlink()
