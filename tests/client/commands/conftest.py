"""The commands as their person meets them: in this process, and once each in one of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from client.cli import app
from client.ingest.codes import Reason
from client.ingest.keys import keyed
from client.ingest.writer import StoreWriter

KEY = bytes(range(32))
ROOT = Path(__file__).parents[3]


@pytest.fixture
def run(monkeypatch) -> Callable[..., Result]:
    """``run("check", "site.yaml")``; ``.stdout`` and ``.stderr`` apart."""
    monkeypatch.setenv("COLUMNS", "100")
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The same in a process of its own."""

    def start(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "client.cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "100", "OMP_NUM_THREADS": "1"},
        )

    return start


@pytest.fixture(scope="session")
def one_object() -> Callable[[str], Any]:
    """The one JSON object that a text is; anything before or after it is an error."""
    return json.loads


@pytest.fixture
def site(tmp_path) -> Callable[..., Path]:
    """``site("workers: 1")`` writes a site's YAML."""

    def write(text: str = "") -> Path:
        (tmp_path / "keys").mkdir(exist_ok=True, mode=0o700)
        path = tmp_path / "site.yaml"
        path.write_text(f"name: north\nstore: store\nsecret: keys/secret\nstate: state\n{text}\n")
        return path

    return write


Rows = list[dict[str, Any]]


@pytest.fixture
def store(tmp_path) -> Callable[..., Path]:
    """``store(rows, refused)``: image i of the rows is grey i; a row may name its ``patient`` and ``study``."""

    def make(rows: Rows, refused: tuple[Reason, ...] = (), finish: bool = True) -> Path:
        path = tmp_path / "store"
        path.mkdir(mode=0o750)
        with StoreWriter(path, findings=("Old Tuberculosis",), secret=KEY) as writer:
            for i, row in enumerate(rows):
                given = {"patient": f"p{i}", "study": f"s{i}", **row}
                for name in ("patient", "study"):
                    given[name] = keyed(KEY, name, str(given[name]))
                given |= {name: keyed(KEY, name, str(i)) for name in ("image", "digest")}
                writer.add({"source": "here", "view": "PA", **given}, np.full((80, 64), 1 + i % 255, np.uint8))
            for i, code in enumerate(refused):
                writer.quarantine(code, f"MRN-SENTINEL-{i}")
            if finish:
                writer.finish()
        return path

    return make
