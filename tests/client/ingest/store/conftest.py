"""An image folder with a manifest, made on the spot."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SECRET = bytes(range(32))


@pytest.fixture
def secret() -> bytes:
    return SECRET


@pytest.fixture
def row(secret: bytes) -> Callable[..., dict[str, Any]]:
    """A row that the schema allows; ``row(3, patient="p")``."""
    from client.ingest.writer import keyed

    def make(number: int, patient: str = "p", **more: Any) -> dict[str, Any]:
        return {
            "image": keyed(secret, "image", str(number)),
            "digest": keyed(secret, "digest", str(number)),
            "patient": keyed(secret, "patient", patient),
            "study": keyed(secret, "study", patient, str(more.pop("study", number))),
            "source": "here",
            "view": "PA",
            **more,
        }

    return make


@pytest.fixture
def pixels() -> Callable[..., np.ndarray]:
    return lambda seed, height=40, width=48: np.random.default_rng(seed).integers(
        0, 256, (height, width), dtype=np.uint8
    )


@pytest.fixture
def folder(tmp_path: Path, pixels: Callable[..., np.ndarray]) -> Callable[..., Path]:
    """``folder(rows)`` writes manifest.csv and, for rows without a file of that name, a PNG of noise."""

    def make(rows: Sequence[dict[str, Any]], name: str = "set", delimiter: str = ",") -> Path:
        path = tmp_path / name
        path.mkdir(exist_ok=True)
        for i, values in enumerate(rows):
            file = path / values["image"]
            if not file.exists() and not values.get("absent"):
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels(i)).save(file)
        names = list(dict.fromkeys(key for values in rows for key in values if key != "absent"))
        with open(path / "manifest.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, names, delimiter=delimiter, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return path

    return make


def contents(store: Path) -> dict[str, bytes]:
    """Every file of a store that is not a lock."""
    return {
        str(file.relative_to(store)): file.read_bytes()
        for file in sorted(store.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


@pytest.fixture
def files() -> Callable[[Path], dict[str, bytes]]:
    return contents
