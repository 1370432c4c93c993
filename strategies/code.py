"""Fingerprint of the source that runs, so that a server and its virtual sites can tell that they run the same code."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("models", "strategies", "client", "server")


@functools.cache
def code_hash(root: Path = ROOT) -> str:
    """SHA-256 over the names and bytes of all Python files of the four packages below ``root``."""
    digest = hashlib.sha256()
    files = sorted(p.relative_to(root).as_posix() for name in PACKAGES for p in (root / name).rglob("*.py"))
    for name in files:
        digest.update(name.encode() + b"\0" + hashlib.sha256((root / name).read_bytes()).digest())
    return digest.hexdigest()
