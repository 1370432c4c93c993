from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.text.batching import buckets


@given(st.lists(st.integers(0, 300), max_size=200), st.integers(1, 2000), st.integers(1, 64))
def test_every_text_once_and_within_the_budget(lengths, tokens, items):
    groups = buckets(lengths, tokens, items)
    assert sorted(np.concatenate(groups).tolist() if groups else []) == list(range(len(lengths)))
    for group in groups:
        longest = max(lengths[i] for i in group)
        assert len(group) <= items
        assert len(group) == 1 or len(group) * longest <= tokens
    longest = [max(lengths[i] for i in group) for group in groups]
    assert longest == sorted(longest, reverse=True)


def test_padding_is_small_where_lengths_differ():
    lengths = np.random.default_rng(0).integers(5, 200, 1000)
    padded = sum(len(g) * lengths[g].max() for g in buckets(lengths, 4096))
    assert padded < 1.06 * lengths.sum()
    assert len(lengths) * lengths.max() > 1.8 * lengths.sum()  # what one batch would cost
