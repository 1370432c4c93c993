"""Fixtures that every test folder may use."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def dev_data() -> Path:
    """The real images beside the checkout; the cases that need them are skipped, and counted, where absent."""
    folder = ROOT.parent / "shared" / "data" / "dev"
    if not folder.is_dir():
        pytest.skip("the real images are not beside this checkout")
    return folder
