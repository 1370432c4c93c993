"""The guard: what stock averaging took without a word, each as a case, and what must still pass."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models.config import ConfigError, build
from strategies.guard import GuardConfig, inspect, update_norm
from strategies.messages import Answer, Code, Refusal, pack, unpack
from strategies.rules._base import Update
from strategies.rules.mean import Config as Mean
from strategies.wire import to_wire

LIMITS = GuardConfig()


def sent() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        "vision/w": torch.randn(3, 2, generator=g),
        "vision/b": torch.randn(3, generator=g),
        "logit/one": torch.randn(1, generator=g),
        "logit/scale": torch.tensor(2.0),
        "vision/empty": torch.zeros(0, 4),
    }


def answer(examples=10, dtype: str = "float32", step: float = 0.01, **arrays) -> Answer:
    """A site's answer after a small step; ``arrays`` replaces single tensors (None takes one away)."""
    tensors, bf16 = to_wire({n: t + step for n, t in sent().items()}, dtype)
    for name, value in arrays.items():
        full = name.replace("__", "/")
        if value is None:
            del tensors[full]
        else:
            tensors[full] = value
    return Answer(site="north", examples=examples, tensors=tensors, bf16=bf16)


def code_of(reply: Answer, limits: GuardConfig = LIMITS, registered: int | None = None) -> Code:
    found = inspect(reply, sent(), limits, registered)
    assert isinstance(found, Refusal), "the guard let it pass"
    assert "\n" not in found.text and 0 < len(found.text) < 300
    return found.code


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-6), ("float16", 2e-3), ("bfloat16", 2e-2)])
def test_an_honest_reply_passes_with_the_shapes_and_dtypes_of_what_was_sent(dtype, error):
    tensors, norm = inspect(answer(dtype=dtype), sent(), LIMITS, registered=10)
    for name, reference in sent().items():
        assert tensors[name].shape == reference.shape and tensors[name].dtype == reference.dtype
        torch.testing.assert_close(tensors[name], reference + 0.01, atol=error, rtol=error)
    assert norm == pytest.approx(0.01 * math.sqrt(3 * 2 + 3 + 1 + 1), rel=0.01 if dtype == "float32" else 0.6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_reference_of_another_precision_keeps_it(dtype):
    reference = {n: t.to(dtype) for n, t in sent().items()}
    tensors, _ = inspect(answer(), reference, LIMITS)
    assert all(tensors[n].dtype == dtype for n in reference)


def test_a_reply_passes_after_the_wire_too():
    reply = unpack(Answer, pack(answer(dtype="bfloat16")))
    tensors, _ = inspect(reply, sent(), LIMITS)
    assert tensors["logit/scale"].shape == ()


def test_the_norm_is_over_all_tensors_in_float64():
    before = {"a": torch.zeros(2, 2), "b": torch.zeros(1)}
    after = {"a": torch.tensor([[3.0, 0.0], [0.0, 0.0]]), "b": torch.tensor([4.0])}
    assert update_norm(after, before) == 5.0
    huge = {"a": torch.full((2, 2), 1e30), "b": torch.zeros(1)}
    assert update_norm(huge, before) == pytest.approx(2e30)  # its square is over the top of float32


@pytest.mark.parametrize(("cap", "passes"), [(0.0, True), (5.0, True), (4.999, False)])
def test_the_norm_cap(cap, passes):
    reference = {"a": torch.zeros(2)}
    reply = Answer(site="s", examples=1, tensors={"a": np.array([3.0, 4.0], np.float32)})
    found = inspect(reply, reference, GuardConfig(max_update_norm=cap))
    if passes:
        assert found[1] == 5.0
    else:
        assert found.code is Code.NORM and "5" in found.text and "4.999" in found.text


@pytest.mark.parametrize("wild", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["vision/w", "logit/scale"])
def test_nan_and_infinity_are_refused(wild, dtype, name):
    stepped = {n: t + 0.01 for n, t in sent().items()}
    stepped[name] = (
        stepped[name].clone().index_fill_(0, torch.tensor([0]), wild) if stepped[name].ndim else torch.tensor(wild)
    )
    tensors, bf16 = to_wire(stepped, dtype)
    assert code_of(Answer(site="s", examples=5, tensors=tensors, bf16=bf16)) is Code.NON_FINITE


def test_a_number_that_overflows_the_reference_is_refused():
    reference = {"a": torch.zeros(1, dtype=torch.float16)}
    reply = Answer(site="s", examples=1, tensors={"a": np.array([1e6], np.float32)})
    assert inspect(reply, reference, LIMITS).code is Code.NON_FINITE


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((1,), np.float32),  # broadcasts to (3,)
        np.zeros((4,), np.float32),
        np.zeros((3, 1), np.float32),
        np.zeros((1, 3), np.float32),
        np.zeros((), np.float32),
        np.zeros((0,), np.float32),
    ],
)
def test_another_shape_is_refused_also_one_that_would_broadcast(array):
    assert code_of(answer(vision__b=array)) is Code.SHAPE


@pytest.mark.parametrize("array", [np.zeros((3,), np.float32), np.zeros((), np.float32), np.zeros((1, 1), np.float32)])
@pytest.mark.parametrize("name", ["logit__one", "logit__scale"])
def test_a_tensor_of_one_number_travels_as_one_number_only(array, name):
    assert code_of(answer(**{name: array})) is Code.SHAPE


def test_other_names_are_refused():
    assert code_of(answer(vision__b=None)) is Code.NAMES
    assert code_of(answer(vision__new=np.zeros(3, np.float32))) is Code.NAMES
    assert code_of(answer(vision__b=None, vision__c=np.zeros(3, np.float32))) is Code.NAMES
    assert code_of(Answer(site="s", examples=3)) is Code.NAMES
    long = Answer(site="s", examples=3, tensors={**answer().tensors, "x" * 10_000: np.zeros(1, np.float32)})
    assert code_of(long) is Code.NAMES  # and its name does not fill the log: the text is checked for length


@pytest.mark.parametrize(
    "examples",
    [0, -9, 10**12, True, False, 10.0, "10", None, math.nan, np.int64(10), [10], 10**400, "9" * 10_000],
)
def test_a_count_of_examples_that_cannot_be_is_refused(examples):
    assert code_of(answer(examples=examples)) is Code.EXAMPLES
    assert code_of(answer(examples=examples), registered=50) is Code.EXAMPLES


def test_a_reply_that_states_no_count_is_refused():
    assert code_of(replace(answer(), examples=Answer(site="s").examples)) is Code.EXAMPLES


@pytest.mark.parametrize(
    ("registered", "slack", "most"),
    [(100, 1.0, 100), (100, 1.01, 101), (50, 1.01, 51), (None, 1.01, 1000), (10**12, 1.01, 1000)],
)
def test_the_most_examples_are_what_the_site_registered_and_never_over_the_cap(registered, slack, most):
    """The last case: a site that registers 1e12 films must not take over by having said so at the start."""
    limits = GuardConfig(max_examples=1000, examples_slack=slack)
    assert not isinstance(inspect(answer(examples=most), sent(), limits, registered), Refusal)
    assert code_of(answer(examples=most + 1), limits, registered) is Code.EXAMPLES


@pytest.mark.parametrize(
    "dtype", [np.int64, np.int32, np.uint8, np.bool_, np.float64, np.uint16, ">f4", np.complex64, "S4"]
)
def test_a_dtype_that_does_not_travel_is_refused(dtype):
    assert code_of(answer(vision__b=np.zeros(3, dtype))) is Code.DTYPE


def test_a_bfloat16_view_must_be_named_and_the_named_must_be_one():
    view, plain = answer(dtype="bfloat16"), answer()
    assert code_of(replace(view, bf16=())) is Code.DTYPE
    assert code_of(replace(plain, bf16=tuple(plain.tensors))) is Code.DTYPE
    half = answer(dtype="float16")
    assert code_of(replace(half, bf16=("vision/b",))) is Code.DTYPE


def test_the_bad_reply_is_dropped_and_the_round_goes_on_with_the_others():
    reference = sent()
    replies = {
        "east": answer(examples=30, step=0.1),
        "nan": answer(examples=10, vision__b=np.array([0, np.nan, 0], np.float32)),
        "greedy": answer(examples=10**12, step=5.0),
        "minus": answer(examples=-9),
        "wide": answer(vision__b=np.zeros(1, np.float32)),
        "west": answer(examples=10, step=-0.1),
    }
    good = []
    for site, reply in replies.items():
        found = inspect(reply, reference, LIMITS)
        if not isinstance(found, Refusal):
            good.append(Update(site, found[0], reply.examples))
    assert [u.site for u in good] == ["east", "west"]
    combined = Mean().build().combine(reference, good)
    for name, tensor in reference.items():
        torch.testing.assert_close(combined[name], tensor + (30 * 0.1 - 10 * 0.1) / 40)


ANY_ARRAY = hnp.arrays(
    dtype=st.one_of(hnp.floating_dtypes(), hnp.integer_dtypes(), hnp.boolean_dtypes(), hnp.byte_string_dtypes()),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), ANY_ARRAY, max_size=3),
    st.lists(st.sampled_from(["a", "b", "c", "z"]), max_size=3).map(tuple),
    st.one_of(st.integers(), st.floats(), st.booleans(), st.text(), st.none()),
    st.floats(0, 10),
)
def test_whatever_comes_is_judged_and_what_passes_is_sound(tensors, bf16, examples, cap):
    reference = {"a": torch.zeros(2), "b": torch.tensor(1.0)}
    reply = Answer(site="s", examples=examples, tensors=tensors, bf16=bf16)
    found = inspect(reply, reference, GuardConfig(max_update_norm=cap), registered=20)
    if isinstance(found, Refusal):
        return
    passed, norm = found
    assert type(examples) is int and 1 <= examples <= 21
    assert passed.keys() == reference.keys()
    assert all(passed[n].shape == t.shape and passed[n].dtype == t.dtype for n, t in reference.items())
    assert all(torch.isfinite(t).all() for t in passed.values()) and math.isfinite(norm) and (not cap or norm <= cap)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"max_update_norm": -1}, "max_update_norm -1.0"),
        ({"max_update_norm": math.nan}, "max_update_norm"),
        ({"max_examples": 0}, "max_examples 0"),
        ({"examples_slack": 0.9}, "examples_slack 0.9"),
    ],
)
def test_limits_that_make_no_sense_are_refused(values, said):
    with pytest.raises(ConfigError, match=said):
        build(GuardConfig, values)
