"""MC4 against a literal loop, invariances and chance."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.evaluation.discrimination import discriminate
from models.evaluation.retrieval import TIE


def cosine(a, b) -> float:
    length = math.sqrt(math.fsum(x * x for x in a)) * math.sqrt(math.fsum(x * x for x in b))
    return math.fsum(x * y for x, y in zip(a, b)) / length


def literal(query, right, wrong) -> tuple[float, float, float, list[float]]:
    own, rivals = cosine(query, right), [cosine(query, w) for w in wrong]
    top = max([own, *rivals])
    tied = sum(s >= top - TIE for s in [own, *rivals])
    beats = [1.0 if own > s + TIE else 0.0 if own < s - TIE else 0.5 for s in rivals]
    return (
        float(all(own > s + TIE for s in rivals)),
        1 / tied if own >= top - TIE else 0.0,
        own - max(rivals),
        beats,
    )


@pytest.mark.parametrize("ties", [False, True])
def test_it_is_the_loop(ties):
    rng = np.random.default_rng(0)
    draw = (lambda *s: rng.integers(-1, 2, s) + 0.001) if ties else (lambda *s: rng.normal(size=s))
    queries, right, wrong = draw(300, 3), draw(300, 3), draw(300, 3, 3)
    found = discriminate(queries, right, wrong)
    expected = [literal(*question) for question in zip(queries.tolist(), right.tolist(), wrong.tolist())]
    assert found.strict.tolist() == [e[0] for e in expected]
    np.testing.assert_allclose(found.shared, [e[1] for e in expected], atol=1e-12)
    np.testing.assert_allclose(found.margin, [e[2] for e in expected], atol=1e-12)
    assert found.beats.tolist() == [e[3] for e in expected]
    assert (found.strict <= found.shared).all()
    if ties:
        assert 0 < (found.shared % 1 > 0).mean() < 1


def test_chance_is_a_quarter():
    rng = np.random.default_rng(1)
    found = discriminate(rng.normal(size=(8000, 6)), rng.normal(size=(8000, 6)), rng.normal(size=(8000, 3, 6)))
    assert found.strict.mean() == pytest.approx(0.25, abs=0.02)
    assert found.shared.mean() == pytest.approx(0.25, abs=0.02) and found.beats.mean() == pytest.approx(0.5, abs=0.02)


def test_one_vector_for_all_is_strictly_wrong_and_a_quarter_by_shares():
    found = discriminate(np.ones((5, 4)), np.ones((5, 4)), np.ones((5, 3, 4)))
    assert found.strict.sum() == 0 and found.shared.tolist() == [0.25] * 5
    assert np.abs(found.margin).max() < 1e-12 and (found.beats == 0.5).all()


def test_the_order_of_the_wrong_ones_does_not_matter():
    rng = np.random.default_rng(2)
    q, r, w = rng.normal(size=(50, 4)), rng.normal(size=(50, 4)), rng.normal(size=(50, 3, 4))
    one, other = discriminate(q, r, w), discriminate(q, r, w[:, [2, 0, 1]])
    np.testing.assert_array_equal(one.strict, other.strict)
    np.testing.assert_array_equal(one.beats[:, [2, 0, 1]], other.beats)


def test_a_perfect_encoder_is_right():
    rng = np.random.default_rng(3)
    q = rng.normal(size=(20, 4))
    found = discriminate(q, 2 * q, -rng.random((20, 3, 1)) * q[:, None])
    assert found.strict.all() and found.margin == pytest.approx(np.full(20, 2.0))


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        (((2, 3), (2, 3), (2, 3)), r"wrong \(2, 3\)"),
        (((2, 3), (1, 3), (2, 3, 3)), r"right \(1, 3\)"),
        (((2, 3), (2, 3), (2, 0, 3)), r"wrong \(2, 0, 3\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes, says):
    with pytest.raises(ValueError, match=says):
        discriminate(*(np.ones(shape) for shape in shapes))


def test_numbers_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="right: 1 of 2 rows"):
        discriminate(np.ones((2, 3)), [[1, 1, np.inf], [1, 1, 1]], np.ones((2, 3, 3)))
