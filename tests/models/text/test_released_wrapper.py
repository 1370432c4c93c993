"""Against the released wrapper's way to encode, literally (tests/reference/text.py)."""

from __future__ import annotations

import pytest

from tests.models.text.towers import REPORTS, make
from tests.reference.text import LiteralWrapper


@pytest.mark.parametrize("pooling", ["mean", "latent"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
def test_the_same_vectors_as_the_literal_wrapper(family, pooling):
    tower = make(scratch={"family": family}, pooling=pooling, latents=16, latent_heads=4, batch_tokens=128)
    literal = LiteralWrapper(tower.trunk, tower.pool, tower.tokens.tokenizer, 128)
    expected = literal.encode(REPORTS, "Retrieve semantically similar sentences")
    found = tower.encode(REPORTS, "Retrieve semantically similar sentences")
    assert (found - expected).abs().max() < 1e-5
    other = tower.encode(REPORTS, "Summarize")
    assert (other - expected).abs().max() > 1e-3
