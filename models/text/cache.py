"""Vectors of a frozen tower, kept on the site's disk: each text is encoded once.

A cache belongs to one tower: weights, tokenizer and settings. Asked with another, or after a training step, it refuses;
a stale vector looks like any other. It holds vectors and hashes, no text, and is as private as the reports.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from models.checkpoint import load as load_tensors
from models.checkpoint import save as save_tensors
from models.checkpoint import write_atomically
from models.text.encoder import TextEncoder
from models.text.tokens import Row

_ABOUT = "cache.json"


class StaleCache(RuntimeError):
    """The cache holds vectors of another tower. The text says what differs and what to do."""


class VectorCache:
    """A folder of vectors. ``encode`` is ``TextEncoder.encode`` that remembers.

    Raises:
        StaleCache: the folder belongs to another tower.
    """

    def __init__(self, folder: Path, encoder: TextEncoder) -> None:
        self.folder = folder
        self.encoder = encoder
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / _ABOUT).exists():
            write_atomically(folder / _ABOUT, json.dumps(encoder.vector_hash()).encode())
        self._check()
        self._vectors: dict[bytes, Tensor] = {}
        for path in sorted(folder.glob("part-*.safetensors")):
            part = load_tensors(path)
            self._vectors |= {key.numpy().tobytes(): vector for key, vector in zip(part["keys"], part["vectors"])}

    def __len__(self) -> int:
        return len(self._vectors)

    def encode(self, texts: Sequence[str], instructions: str | Sequence[str] | None = None) -> Tensor:
        """Vectors [N,W] float32 on the CPU; only texts not met before are computed.

        Raises:
            StaleCache: the tower has changed since the cache was opened.
        """
        self._check()
        rows = self.encoder.tokens.rows(texts, instructions)
        keys = [_key(row) for row in rows]
        new = {key: i for i, key in enumerate(keys) if key not in self._vectors}
        if new:
            given = instructions if instructions is None or isinstance(instructions, str) else list(instructions)
            chosen = given if given is None or isinstance(given, str) else [given[i] for i in new.values()]
            vectors = self.encoder.encode([texts[i] for i in new.values()], chosen)
            self._keep(list(new), vectors)
        return torch.stack([self._vectors[key] for key in keys]) if keys else torch.zeros(0, self.encoder.width)

    def _keep(self, keys: list[bytes], vectors: Tensor) -> None:
        table = torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).view(len(keys), -1)
        name = hashlib.sha256(b"".join(keys)).hexdigest()[:16]
        save_tensors(self.folder / f"part-{name}.safetensors", {"keys": table, "vectors": vectors})
        self._vectors |= dict(zip(keys, vectors))

    def _check(self) -> None:
        try:
            about = json.loads((self.folder / _ABOUT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise StaleCache(f"{self.folder / _ABOUT}: cannot be read; delete the folder to encode anew") from None
        now = self.encoder.vector_hash()
        other = [name for name in now if not isinstance(about, dict) or about.get(name) != now[name]]
        if other:
            raise StaleCache(
                f"{self.folder}: the vectors are of another tower (other {', '.join(other)}); delete the folder, or give "
                f"another, to encode anew; a tower that trains cannot be cached"
            )


def _key(row: Row) -> bytes:
    ids, start, stop = row.key
    return hashlib.sha256(ids + start.to_bytes(4, "little") + stop.to_bytes(4, "little")).digest()
