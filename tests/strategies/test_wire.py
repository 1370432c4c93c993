"""Tensors to what travels and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from strategies.messages import WIRE_DTYPES, ProtocolError
from strategies.wire import from_wire, to_wire

SHAPES = [(), (1,), (3,), (2, 3), (0,), (0, 4), (1, 1), (2, 3, 4, 5)]


def tensors(dtype=torch.float32) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {f"c/{shape}": torch.randn(shape, generator=g).to(dtype) for shape in SHAPES}


@pytest.mark.parametrize("wire", WIRE_DTYPES)
@pytest.mark.parametrize("own", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_there_and_back_keeps_shape_and_dtype_and_rounds_once(wire, own):
    sent = tensors(own)
    arrays, bf16 = to_wire(sent, wire)
    back = from_wire(arrays, bf16, sent)
    for name, tensor in sent.items():
        assert back[name].shape == tensor.shape and back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor.to(getattr(torch, wire)).to(own))


def test_the_same_precision_comes_back_bit_for_bit_special_values_too():
    values = [0.0, -0.0, 1e-40, 3.4e38, float("inf"), float("-inf"), float("nan"), 2**-149]
    for wire in WIRE_DTYPES:
        sent = {"a": torch.tensor(values).to(getattr(torch, wire))}
        arrays, bf16 = to_wire(sent, wire)
        back = from_wire(arrays, bf16, sent)["a"]
        kind = torch.int32 if wire == "float32" else torch.int16
        assert torch.equal(back.view(kind), sent["a"].view(kind))


def test_what_travels_is_what_numpy_knows():
    sent = tensors()
    for wire, kind in (("float32", np.float32), ("float16", np.float16), ("bfloat16", np.uint16)):
        arrays, bf16 = to_wire(sent, wire)
        assert bf16 == (tuple(sent) if wire == "bfloat16" else ())
        for name, tensor in sent.items():
            assert arrays[name].dtype == kind and arrays[name].flags.c_contiguous
            assert arrays[name].shape == (tuple(tensor.shape) or (1,))


def test_bfloat16_is_the_upper_half_of_float32():
    """An independent definition: the 16 high bits, rounded to the nearest even."""
    x = torch.randn(500, generator=torch.Generator().manual_seed(1))
    bits = x.numpy().view(np.uint32).astype(np.uint64)
    want = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    np.testing.assert_array_equal(to_wire({"a": x}, "bfloat16")[0]["a"], want)


def test_neither_side_shares_memory_with_the_wire():
    own = torch.ones(3)
    arrays, _ = to_wire({"a": own})
    own.add_(1)
    assert arrays["a"].tolist() == [1, 1, 1]
    back = from_wire(arrays, (), {"a": own})["a"]
    back.add_(5)
    assert arrays["a"].tolist() == [1, 1, 1]


def test_views_gradients_and_transposes_travel():
    base = torch.arange(12.0).view(3, 4).requires_grad_()
    arrays, _ = to_wire({"t": base.t(), "s": base[:, 1]})
    np.testing.assert_array_equal(arrays["t"], np.arange(12, dtype=np.float32).reshape(3, 4).T)
    assert arrays["s"].tolist() == [1, 5, 9]


def test_read_only_bytes_can_be_received():
    array = np.ones(3, np.float32)
    array.flags.writeable = False
    from_wire({"a": array}, (), {"a": torch.zeros(3)})["a"].add_(1)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8, torch.complex64])
def test_what_is_no_floating_point_does_not_travel(dtype):
    with pytest.raises(ValueError, match="does not travel"):
        to_wire({"a": torch.zeros(2, dtype=dtype)})


def test_an_unknown_wire_dtype_is_named():
    with pytest.raises(ValueError, match=r"'float8'.*float32, float16, bfloat16"):
        to_wire({}, "float8")


@pytest.mark.parametrize(
    ("arrays", "bf16", "said"),
    [
        ({}, (), "1 tensor names differ .* 'a'"),
        ({"a": np.zeros(2, np.float32), "b": np.zeros(1, np.float32)}, (), "'b'"),
        ({"b": np.zeros(2, np.float32)}, (), "2 tensor names"),
        ({"a": np.zeros(1, np.float32)}, (), r"shape \(1,\)"),
        ({"a": np.zeros((2, 1), np.float32)}, (), "shape"),
        ({"a": np.zeros(2, np.int64)}, (), "int64 does not travel"),
        ({"a": np.zeros(2, np.float64)}, (), "float64 does not travel"),
        ({"a": np.zeros(2, np.uint16)}, (), "uint16 does not travel"),
        ({"a": np.zeros(2, ">f4")}, (), ">f4 does not travel"),
        ({"a": np.zeros(2, np.float32)}, ("a",), "float32 does not travel"),
        ({"a": np.array(["x", "y"])}, (), "does not travel"),
    ],
)
def test_what_does_not_fit_is_a_protocol_error(arrays, bf16, said):
    with pytest.raises(ProtocolError, match=said):
        from_wire(arrays, bf16, {"a": torch.zeros(2)})


@given(
    st.lists(st.floats(width=32, allow_nan=False), max_size=20),
    st.sampled_from(WIRE_DTYPES),
)
def test_rounding_is_torchs_for_every_number(numbers, wire):
    own = {"a": torch.tensor(numbers, dtype=torch.float32)}
    arrays, bf16 = to_wire(own, wire)
    assert torch.equal(from_wire(arrays, bf16, own)["a"], own["a"].to(getattr(torch, wire)).float())
