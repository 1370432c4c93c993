"""One reading child for all tests here: starting one costs half a second."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from client.ingest.sandbox import Sandbox


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running
