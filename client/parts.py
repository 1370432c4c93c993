"""What a site keeps of adapters that it was sent: tensors by the SHA-256 of what they hold, so that nothing is sent twice."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor

from models.checkpoint import load, save

ID = re.compile(r"[0-9a-f]{64}")


class Parts:
    """The parts of one run and cohort, in ``folder``, each a file. What a part is called is checked by who reads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, part: str) -> dict[str, Tensor] | None:
        """The tensors of ``part``, in the type that they travelled in; None if it is not here, or not whole."""
        path = self._path(part)
        try:
            return load(path) if path.exists() else None
        except ValueError:  # torn by a full disk: the server sends it again
            return None

    def put(self, part: str, tensors: Mapping[str, Tensor]) -> None:
        if not self._path(part).exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            save(self._path(part), tensors)

    def keep(self, wanted: Collection[str]) -> None:
        """Forget every other part."""
        for path in self.folder.glob("*.safetensors"):
            if path.stem not in wanted and ID.fullmatch(path.stem):
                path.unlink()

    def _path(self, part: str) -> Path:
        if not ID.fullmatch(part):
            raise ValueError("a part is named by 64 hexadecimal digits")
        return self.folder / f"{part}.safetensors"
