"""The wire contract: what a server asks and what a site answers. Both sides import it; nobody else spells a key.

Plain Python and numpy: a site trainer reads it in an environment without Flower, over a UNIX socket
(:func:`pack`, :func:`unpack`), and ``strategies/records.py`` carries the same objects over Flower.

Traps the contract carries: numpy has no bfloat16, so those tensors travel as a uint16 view and are named in
``bf16``; a 0-dimensional tensor travels as shape (1,) and takes the receiver's shape back; integer tensors do not travel.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
import types
import typing
from collections.abc import Container
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import safetensors.numpy

from models.evaluation.results import Result

PROTOCOL = 1
WIRE_DTYPES = ("float32", "float16", "bfloat16")


class Kind(StrEnum):
    """What the server asks for."""

    HELLO = "hello"  # who are you, what can you train on?
    TRAIN = "train"  # evaluate what I send, train it, send it back
    EVALUATE = "evaluate"  # evaluate what I send


class Code(StrEnum):
    """Why a site said no, or why its answer was not used. Stable words."""

    # said by the site
    BAD_REQUEST = "bad_request"
    STALE_CODE = "stale_code"
    POLICY = "policy"
    NO_DATA = "no_data"
    PRIVACY = "privacy_not_available"
    NON_FINITE_LOSS = "non_finite_loss"
    OUT_OF_MEMORY = "out_of_memory"
    INTERNAL = "internal_error"
    UNREACHABLE = "trainer_unreachable"
    PART = "adapter_part_missing"
    # said by either
    ADAPTER = "adapter_mismatch"
    # said by the server's guard
    NAMES = "wrong_names"
    SHAPE = "wrong_shape"
    DTYPE = "wrong_dtype"
    NON_FINITE = "non_finite_update"
    EXAMPLES = "absurd_example_count"
    NORM = "update_norm_over_cap"
    # said by the server's clock
    TIMEOUT = "deadline_passed"
    LOST = "reply_lost"


class ProtocolError(ValueError):
    """A message that does not follow the contract."""


@dataclass(frozen=True)
class Refusal:
    """A site's no, or the guard's. ``text`` is one line without any name, path or value of a patient."""

    code: Code
    text: str


@dataclass(frozen=True)
class Ask:
    """Server to site. Tensors are keyed by ``component/parameter``."""

    kind: Kind
    run: str
    site: str
    seed: int
    config_hash: str
    code_hash: str
    phase: str = ""
    round: int = 0
    cohort: str = ""  # which comparison arm's model this is; random streams do not depend on it
    model: dict[str, Any] = field(default_factory=dict)
    objective: dict[str, Any] = field(default_factory=dict)
    local: dict[str, Any] = field(default_factory=dict)
    local_extra: dict[str, float] = field(default_factory=dict)  # what the rule adds, e.g. proximal_mu
    evaluation: dict[str, Any] = field(default_factory=dict)
    rounds: int = 0
    components: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()  # patterns of tensors that stay at the site
    settled: tuple[str, ...] = ()  # components of earlier phases that this one builds on and does not change
    wire_dtype: str = "float32"
    evaluate: bool = True
    privacy: dict[str, Any] = field(default_factory=dict)
    adapter: dict[str, Any] = field(default_factory=dict)  # of low-rank adapters (strategies/adapters.py)
    bf16: tuple[str, ...] = ()
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    protocol: int = PROTOCOL

    def only(self, names: Container[str]) -> Ask:
        """The same ask with those tensors alone that are among ``names``."""
        tensors = {name: array for name, array in self.tensors.items() if name in names}
        return dataclasses.replace(self, tensors=tensors, bf16=tuple(name for name in self.bf16 if name in tensors))


@dataclass(frozen=True)
class Answer:
    """Site to server. Exactly one of a refusal and the rest."""

    site: str
    refusal: Refusal | None = None
    examples: int = 0
    metrics: tuple[Result, ...] = ()
    privacy: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)  # hello: counts by split and finding
    adapter: dict[str, Any] = field(default_factory=dict)  # the facts of the ask, as they are at the site
    bf16: tuple[str, ...] = ()
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    protocol: int = PROTOCOL


def fields_of(message: Ask | Answer) -> dict[str, Any]:
    """Everything but the tensors, as JSON-ready values."""
    values = {f.name: getattr(message, f.name) for f in dataclasses.fields(message) if f.name != "tensors"}
    if isinstance(message, Answer):
        values["metrics"] = [dataclasses.asdict(m) for m in message.metrics]
        values["refusal"] = dataclasses.asdict(message.refusal) if message.refusal else None
    return values


def from_fields(cls: type, values: Any, tensors: dict[str, np.ndarray]) -> Any:
    """The inverse of :func:`fields_of`.

    Raises:
        ProtocolError: another protocol version, a missing or unknown field, or a field of another type.
    """
    try:
        values = dict(values)
        if values.get("protocol") != PROTOCOL:
            raise ProtocolError(
                f"protocol {values.get('protocol')!r}, this side speaks {PROTOCOL}; install the same release on both"
            )
        _check_types(cls, values)
        for name in ("components", "keep", "settled", "bf16"):
            if name in values:
                values[name] = tuple(values[name])
        if cls is Ask:
            values["kind"] = Kind(values["kind"])
        else:
            values["metrics"] = tuple(Result(**m) for m in values["metrics"])
            refusal = values["refusal"]
            values["refusal"] = Refusal(Code(refusal["code"]), str(refusal["text"])) if refusal else None
        return cls(tensors=tensors, **values)
    except ProtocolError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProtocolError(f"not a well-formed {cls.__name__.lower()} ({type(error).__name__})") from None


def _check_types(cls: type, values: dict[str, Any]) -> None:
    hints = typing.get_type_hints(cls)
    for name, value in values.items():
        if name in hints and not _fits(value, hints[name]):
            raise ProtocolError(f"{cls.__name__.lower()}.{name}: not a value of the contract's type or range")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a JSON value can stand for ``kind``: lists for tuples, objects for dataclasses, no NaN."""
    if isinstance(kind, types.UnionType):
        return any(_fits(value, k) for k in typing.get_args(kind))
    plain, inner = typing.get_origin(kind) or kind, typing.get_args(kind)
    if plain is Any:
        return True
    if dataclasses.is_dataclass(plain):
        hints = typing.get_type_hints(plain)
        return isinstance(value, dict) and all(_fits(v, hints.get(name, Any)) for name, v in value.items())
    if plain is tuple:
        return isinstance(value, list) and all(_fits(v, inner[0]) for v in value)
    if plain is dict:
        return isinstance(value, dict) and all(_fits(v, inner[1]) for v in value.values())
    if plain is int or (plain is float and isinstance(value, int)):
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63
    if plain is float:
        return isinstance(value, float) and math.isfinite(value)
    return isinstance(value, str if issubclass(plain, str) else plain)


def pack(message: Ask | Answer) -> bytes:
    """One message as bytes: header length, JSON header, safetensors body."""
    header = json.dumps(fields_of(message)).encode()
    return struct.pack("<Q", len(header)) + header + safetensors.numpy.save(message.tensors)


def unpack(cls: type, data: bytes) -> Any:
    """The inverse of :func:`pack`.

    Raises:
        ProtocolError: the bytes are not a whole message of this protocol.
    """
    try:
        (size,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + size])
        tensors = safetensors.numpy.load(data[8 + size :])
    except Exception as error:  # struct, json and the safetensors reader each raise their own
        raise ProtocolError(f"not a message ({type(error).__name__})") from None
    return from_fields(cls, header, tensors)
