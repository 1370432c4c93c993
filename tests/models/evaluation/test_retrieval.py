"""Retrieval against a literal loop over all orders of ties, sklearn, invariances and chance."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from models.evaluation.retrieval import KS, TIE, hits, merged, unit
from models.language.canonical import canonical_keys


def literal(queries, bank, right, keys, k) -> list[float]:
    """In Python floats: of every order of the bank that the cosines allow, the share with a right text among the first
    k. Ties are put in all orders."""
    found = []
    for query, wanted in zip(queries, right):
        scored = [(math.fsum(a * b for a, b in zip(query, text)), key) for text, key in zip(bank, keys)]
        best = max(score for score, key in scored if key == wanted)
        above = [key for score, key in scored if score > best + TIE]
        level = [key == wanted for score, key in scored if abs(score - best) <= TIE]
        orders = list(itertools.permutations(level))
        seats = max(k - len(above), 0)
        found.append(sum(any(order[:seats]) for order in orders) / len(orders))
    return found


def coarse(rng, n, d=3):
    """Unit vectors of few directions, so that many cosines tie."""
    return unit(rng.integers(-1, 2, (n, d)) + np.array([1e-3, 0, 0]))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("copies", [False, True])
def test_it_is_the_loop_over_all_orders(seed, copies):
    rng = np.random.default_rng(seed)
    queries, bank = coarse(rng, 12), coarse(rng, 7)
    keys = rng.integers(0, 4, 7) if copies else np.arange(7)
    right = rng.choice(keys, 12)
    found = hits(queries, bank, right, keys, (1, 2, 3, 6))
    for column, k in enumerate((1, 2, 3, 6)):
        np.testing.assert_allclose(found[:, column], literal(queries, bank, right, keys, k), atol=1e-12)


def test_without_ties_it_is_sklearns_top_k():
    rng = np.random.default_rng(0)
    queries, bank = rng.normal(size=(300, 16)), rng.normal(size=(40, 16))
    right = rng.integers(0, 40, 300)
    scores = unit(queries) @ unit(bank).T
    for column, k in enumerate(KS):
        expected = top_k_accuracy_score(right, scores, k=k, labels=np.arange(40))
        assert hits(queries, bank, right)[:, column].mean() == pytest.approx(expected, abs=1e-12)


def test_a_text_finds_itself_and_length_does_not_matter():
    bank = np.random.default_rng(1).normal(size=(50, 8))
    scale = np.linspace(0.01, 90, 50)[:, None]
    assert (hits(bank * scale, bank, np.arange(50)) == 1).all()


def test_the_order_of_bank_and_queries_does_not_matter():
    rng = np.random.default_rng(2)
    queries, bank, right = coarse(rng, 60), coarse(rng, 30), rng.integers(0, 30, 60)
    keys = np.arange(30)
    whole = hits(queries, bank, right, keys)
    q, b = rng.permutation(60), rng.permutation(30)
    np.testing.assert_allclose(hits(queries[q], bank[b], right[q], keys[b]), whole[q], atol=1e-12)


def test_random_vectors_and_one_vector_for_all_are_at_chance():
    rng = np.random.default_rng(3)
    for queries, bank in (
        (rng.normal(size=(4000, 8)), rng.normal(size=(40, 8))),
        (np.ones((4000, 8)), np.ones((40, 8))),
    ):
        found = hits(queries, bank, rng.integers(0, 40, 4000)).mean(axis=0)
        np.testing.assert_allclose(found, np.array(KS) / 40, atol=0.025)


def test_shuffled_pairs_are_at_chance():
    rng = np.random.default_rng(4)
    bank = rng.normal(size=(500, 32))
    queries = bank + 0.1 * rng.normal(size=bank.shape)
    assert hits(queries, bank, np.arange(500))[:, 0].mean() > 0.99
    assert hits(queries, bank, rng.permutation(500))[:, 0].mean() < 0.01


def test_a_copy_in_the_bank_is_no_mistake():
    texts = ["No acute disease.", "no  acute DISEASE.", "Large effusion."]
    keys = canonical_keys(texts)
    assert keys[0] == keys[1] != keys[2]
    vectors = np.array([[1.0, 0], [1.0, 0], [0, 1.0]])
    assert hits(vectors, vectors, keys, keys)[:, 0].tolist() == [1, 1, 1]
    assert hits(vectors, vectors, np.arange(3))[:, 0].tolist() == [0.5, 0.5, 1]
    first = merged(keys)
    assert first.tolist() == [0, 2] and hits(vectors, vectors[first], keys, keys[first])[:, 0].min() == 1


def test_many_queries_go_block_by_block():
    bank = np.random.default_rng(5).normal(size=(2100, 4))
    assert (hits(bank, bank, np.arange(2100), ks=(1,)) == 1).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"queries": np.zeros(3)}, r"shape \(3,\)"),
        ({"queries": np.full((2, 3), np.nan)}, "2 of 2 rows"),
        ({"bank": np.ones((4, 2))}, r"bank \(4, 2\)"),
        ({"right": [0, 9]}, "of 1 of 2 queries is not in the bank"),
        ({"ks": (0, 1)}, "at least 1"),
    ],
)
def test_what_cannot_be_is_refused(change, says):
    given = {"queries": np.ones((2, 3)), "bank": np.ones((4, 3)), "right": [0, 1]} | change
    with pytest.raises(ValueError, match=says):
        hits(**given)


def test_a_zero_vector_is_like_nothing():
    found = hits(np.zeros((1, 2)), np.array([[1.0, 0], [0, 1.0]]), [0])
    assert found[0, 0] == 0.5
