"""A small store written straight to disk: tests of reading must not depend on the writer in `client`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.studies.schema import CHEXPERT, SCHEMA_VERSION, table_schema
from models.studies.store import Store


def key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def image(seed: int, height: int = 40, width: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def write_store(path: Path, rows: Sequence[dict[str, Any]], free: tuple[str, ...] = (), **about: Any) -> Path:
    """``rows``: any columns of the schema, plus ``pixels``; patients and studies may be plain words."""
    (path / "images").mkdir(parents=True)
    findings = (*CHEXPERT, *sorted(free))
    schema = table_schema(findings)
    table: dict[str, list[Any]] = {name: [] for name in schema.names}
    offset = 0
    with open(path / "images" / "shard-00000.u8", "wb") as shard:
        for i, given in enumerate(rows):
            pixels = given.get("pixels", image(i))
            shard.write(pixels.tobytes())
            patient = given.get("patient", f"patient {i}")
            row = {
                "image": key(f"image {i}"),
                "digest": key(f"digest {i}"),
                "day": None,
                "order": 0,
                "source": "here",
                "view": "PA",
                "sex": "F",
                "age_band": "50-59",
                "height": pixels.shape[0],
                "width": pixels.shape[1],
                "shard": 0,
                "offset": offset,
                **{k: v for k, v in given.items() if k != "pixels"},
                "patient": key(patient),
                "study": key(given.get("study", f"study {i}")),
                "prior": key(given["prior"]) if given.get("prior") else None,
            }
            offset += pixels.size
            for name in schema.names:
                table[name].append(row.get(name, -2 if name.startswith("label:") else None))
    pq.write_table(pa.table(table, schema=schema), path / "studies.parquet")
    facts = {
        "schema_version": SCHEMA_VERSION,
        "findings": list(findings),
        "split_salt": "fedcxr",
        "table_sha256": hashlib.sha256((path / "studies.parquet").read_bytes()).hexdigest(),
        **about,
    }
    (path / "store.json").write_text(json.dumps(facts))
    return path


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Store]:
    def make(rows: Sequence[dict[str, Any]], free: tuple[str, ...] = ()) -> Store:
        return Store.open(write_store(tmp_path / "store", rows, free))

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    return lambda rows, free=(), **about: write_store(tmp_path / "store", rows, free, **about)


@pytest.fixture
def make_stores(tmp_path: Path) -> Callable[..., Store]:
    """Like ``make_store``, for several stores in one test."""
    count = iter(range(100))
    return lambda rows, free=(): Store.open(write_store(tmp_path / f"store-{next(count)}", rows, free))
