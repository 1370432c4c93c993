"""Fixtures of the server's tests: a tiny study store, virtual sites that start cold."""

from __future__ import annotations

import pytest

from tests.world import write_store


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("tiny") / "store")


@pytest.fixture(autouse=True)
def _cold():
    """Each test starts with cold virtual sites: they are keyed by run name, which the tests reuse."""
    from client import virtual

    virtual._warm.clear()
    virtual._opened.clear()
