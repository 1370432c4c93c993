"""The contrastive loss against a loop over queries and documents, and what is no negative."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.language.canonical import canonical
from models.objectives._contrast import contrast, false_negatives
from tests.reference.text import literal_contrast

WORDS = st.sampled_from(["no effusion", "No  Effusion ", "edema", "EDEMA", "normal", "large nodule", "small nodule"])


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10_000),
    st.integers(2, 6).flatmap(
        lambda n: st.tuples(*(st.lists(WORDS, min_size=n, max_size=n) for _ in range(2)), st.lists(WORDS, max_size=n))
    ),
    st.sampled_from([1.0, 20.0, 50.0]),
)
def test_it_is_the_loop(seed, texts, scale):
    queries, positives, negatives = texts
    g = torch.Generator().manual_seed(seed)
    q = torch.randn(len(queries), 5, generator=g, dtype=torch.float64)
    d = torch.randn(len(positives) + len(negatives), 5, generator=g, dtype=torch.float64)
    expected = literal_contrast(
        q.tolist(), d[: len(positives)].tolist(), d[len(positives) :].tolist(), queries, positives, negatives, scale
    )
    found = contrast(q, d, false_negatives(queries, positives, negatives), scale)
    assert float(found) == pytest.approx(expected, abs=2e-5 * max(1.0, abs(expected)))


def test_every_query_sees_all_positives_and_all_hard_negatives():
    texts = [f"text {i}" for i in range(6)]
    assert false_negatives(texts[:2], texts[2:4], texts[4:]).tolist() == [[False] * 4, [False] * 4]


@pytest.mark.parametrize(
    ("queries", "positives", "negatives", "excluded"),
    [
        (["a", "b"], ["x", "X "], [], [[False, True], [True, False]]),  # one right answer, twice
        (["a", "b"], ["b", "y"], [], [[False, False], [True, False]]),  # a positive that is another's query
        (["a", "A"], ["x", "y"], [], [[False, True], [True, False]]),  # one question, twice
        (["a", "b"], ["x", "y"], ["X", "z"], [[False, False, True, False], [False] * 4]),
        (["a", "b"], ["x", "y"], ["b"], [[False, False, False], [False, False, True]]),
    ],
)
def test_right_answers_are_no_negatives(queries, positives, negatives, excluded):
    assert false_negatives(queries, positives, negatives).tolist() == excluded


def test_equal_texts_without_the_mask_would_push_apart():
    """The negative control: the mask is what makes the loss of a batch of copies vanish."""
    q = torch.randn(3, 4, requires_grad=True)
    same = ["normal chest"] * 3
    masked = contrast(q, q.detach().clone(), false_negatives(same, same, same[:0]), 20.0)
    plain = contrast(q, q.detach().clone(), torch.zeros(3, 3, dtype=torch.bool), 1.0)
    masked.backward()
    assert float(masked) == 0 and q.grad.abs().max() == 0
    assert float(contrast(torch.ones(3, 4), torch.ones(3, 4), torch.zeros(3, 3, dtype=torch.bool), 20.0)) > 1
    assert float(plain) > 0


def test_half_precision_vectors_are_compared_in_float32():
    q, d = torch.randn(8, 16).bfloat16(), torch.randn(16, 16).bfloat16()
    none = torch.zeros(8, 16, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        found = contrast(q, d, none, 50.0)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(contrast(q.float(), d.float(), none, 50.0)), abs=1e-6)


def test_it_goes_from_queries_to_documents_only():
    q, d = torch.eye(3)[:2], torch.tensor([[1.0, 0, 0], [1.0, 1.0, 0]])
    none = torch.zeros(2, 2, dtype=torch.bool)
    assert float(contrast(q, d, none, 5.0)) != pytest.approx(float(contrast(d, q, none, 5.0)), abs=1e-3)


def test_canonical_texts():
    assert canonical("No  effusion.\n") == canonical(" no EFFUSION. ") != canonical("no effusion")
    assert isinstance(canonical("\ud800"), int) and -(2**63) <= canonical("x") < 2**63
