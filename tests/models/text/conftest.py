"""Towers and a saved model for reading only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models.text.towers import make


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tower():
    """A tower that no test changes."""
    return make()


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A saved Llama with its tokenizer, for reading only."""
    path = tmp_path_factory.mktemp("llama")
    make(seed=1, scratch={"kv_heads": 2}).save(path)
    return path
