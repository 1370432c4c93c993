"""Torch tensors to what travels and back (see the traps in ``messages``)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from strategies.messages import WIRE_DTYPES, ProtocolError


def to_wire(tensors: Mapping[str, Tensor], dtype: str = "float32") -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Arrays in ``dtype`` and the names of those that are a uint16 view of bfloat16.

    Raises:
        ValueError: a dtype that does not travel, or a tensor that is not floating-point.
    """
    if dtype not in WIRE_DTYPES:
        raise ValueError(f"wire dtype {dtype!r}: one of {', '.join(WIRE_DTYPES)}")
    arrays: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{name}: {tensor.dtype} does not travel; only floating-point tensors do")
        cast = tensor.detach().to("cpu", getattr(torch, dtype)).contiguous()
        if dtype == "bfloat16":
            cast = cast.view(torch.uint16)
        # A copy: the sender goes on training the tensor whose memory numpy would share.
        arrays[name] = np.atleast_1d(cast.numpy()).copy()
    return arrays, tuple(arrays) if dtype == "bfloat16" else ()


def as_they_are(tensors: Mapping[str, Tensor]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Arrays of tensors that are of a type of the wire each, and the names of the bfloat16 ones; see ``to_wire``."""
    arrays: dict[str, np.ndarray] = {}
    bf16: tuple[str, ...] = ()
    for name, tensor in tensors.items():
        one, half = to_wire({name: tensor}, str(tensor.dtype).removeprefix("torch."))
        arrays |= one
        bf16 += half
    return arrays, bf16


def as_sent(arrays: Mapping[str, np.ndarray], bf16: tuple[str, ...]) -> dict[str, Tensor]:
    """Tensors of the type that they travel in.

    Raises:
        ProtocolError: a dtype that does not travel.
    """
    out: dict[str, Tensor] = {}
    for name, array in arrays.items():
        if not travels(array, name in bf16):
            raise ProtocolError(f"{name}: dtype {array.dtype} does not travel; see the wire contract")
        tensor = torch.from_numpy(array.copy())
        out[name] = tensor.view(torch.bfloat16) if name in bf16 else tensor
    return out


def travels(array: np.ndarray, is_bf16: bool) -> bool:
    """Whether ``array`` has a dtype of the contract: uint16 for a bfloat16 view, else float32 or float16."""
    return array.dtype == "uint16" if is_bf16 else array.dtype in ("float32", "float16")


def from_wire(arrays: Mapping[str, np.ndarray], bf16: tuple[str, ...], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with the shapes and dtypes of ``like``.

    Raises:
        ProtocolError: other names than ``like``, a shape that is not the reference's, or a dtype that does
            not travel.
    """
    if arrays.keys() != like.keys():
        odd = sorted(arrays.keys() ^ like.keys())
        raise ProtocolError(f"{len(odd)} tensor names differ from this model's, first {odd[0]!r}")
    out: dict[str, Tensor] = {}
    for name, reference in like.items():
        array = arrays[name]
        if array.shape != (tuple(reference.shape) or (1,)):
            raise ProtocolError(f"{name}: shape {array.shape}, this model has {tuple(reference.shape)}")
        if not travels(array, name in bf16):
            raise ProtocolError(f"{name}: dtype {array.dtype} does not travel; see the wire contract")
        tensor = torch.from_numpy(array.copy())
        if name in bf16:
            tensor = tensor.view(torch.bfloat16)
        out[name] = tensor.reshape(reference.shape).to(reference.dtype)
    return out
