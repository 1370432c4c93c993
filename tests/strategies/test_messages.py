"""The wire contract: whole messages come back as they were; anything else is a ProtocolError, no worse."""

from __future__ import annotations

import dataclasses
import json
import struct

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from models.evaluation.results import Result
from strategies.messages import (
    PROTOCOL,
    Answer,
    Ask,
    Code,
    Kind,
    ProtocolError,
    Refusal,
    fields_of,
    from_fields,
    pack,
    unpack,
)

ARRAYS = {
    "vision/f4": np.linspace(-3, 3, 12, dtype=np.float32).reshape(3, 4),
    "vision/f2": np.arange(5, dtype=np.float16),
    "vision/bf16": np.array([0x3F80, 0x7F80], np.uint16),
    "logit/0-dim": np.array([2.5], np.float32),
    "vision/empty": np.zeros((0, 3), np.float32),
    "vision/nan": np.array([np.nan, np.inf, -0.0], np.float32),
}


def ask() -> Ask:
    return Ask(
        kind=Kind.TRAIN,
        run="run-1",
        site="north",
        seed=7,
        config_hash="ab",
        code_hash="cd",
        phase="diagnosis",
        round=3,
        cohort="federated",
        model={
            "config": {"vision": {"name": "vit", "mlp_ratio": 4.0}},
            "objectives": [{"name": "diagnosis"}],
        },
        objective={"name": "diagnosis", "findings": ["Edema"]},
        local={"epochs": 1.0, "steps": None},
        local_extra={"proximal_mu": 0.1},
        evaluation={"split": "validation"},
        rounds=8,
        components=("vision", "head.diagnosis"),
        keep=("vision/*bn*",),
        wire_dtype="bfloat16",
        evaluate=False,
        privacy={"epsilon": 1.0},
        bf16=("vision/bf16",),
        tensors=ARRAYS,
    )


def answer() -> Answer:
    return Answer(
        site="north",
        examples=120,
        metrics=(
            Result(
                "auroc",
                "Edema",
                0.75,
                0.7,
                0.8,
                n=100,
                positives=40,
                positive_patients=30,
                negative_patients=50,
            ),
            Result("brier", "Edema", None, reason="suppressed: fewer than 5"),
            Result("bce_loss", None, 1, n=10),
        ),
        privacy={"spent": {"epsilon": 0.5}},
        facts={"train": {"films": 100, "positives": {"Edema": None}}},
        bf16=("vision/bf16",),
        tensors=ARRAYS,
    )


def no() -> Answer:
    return Answer(site="north", refusal=Refusal(Code.POLICY, "this run is not on the site's list of runs"))


def equal(one, other) -> bool:
    plain = all(
        getattr(one, f.name) == getattr(other, f.name)
        for f in dataclasses.fields(one)
        if f.name not in ("tensors", "metrics")
    )
    if isinstance(one, Answer):
        plain &= one.metrics == other.metrics
    same = one.tensors.keys() == other.tensors.keys() and all(
        a.dtype == other.tensors[n].dtype
        and a.shape == other.tensors[n].shape
        and a.tobytes() == other.tensors[n].tobytes()
        for n, a in one.tensors.items()
    )
    return plain and same


MESSAGES = [ask(), Ask(Kind.HELLO, "r", "", 0, "", ""), answer(), no(), Answer(site="")]


@pytest.mark.parametrize("message", MESSAGES, ids=["ask", "bare ask", "answer", "refusal", "bare answer"])
def test_packed_and_unpacked_it_is_the_same_message(message):
    back = unpack(type(message), pack(message))
    assert type(back) is type(message) and equal(back, message)


def test_types_come_back_as_types():
    back = unpack(Ask, pack(ask()))
    assert isinstance(back.kind, Kind) and isinstance(back.components, tuple) and isinstance(back.bf16, tuple)
    assert isinstance(unpack(Answer, pack(no())).refusal.code, Code)
    assert all(isinstance(m, Result) for m in unpack(Answer, pack(answer())).metrics)


def test_the_bytes_are_a_length_a_json_header_and_safetensors():
    """An independent reading of the format that ``pack`` documents."""
    data = pack(answer())
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert header["protocol"] == PROTOCOL and header["site"] == "north" and "tensors" not in header
    tensors = safetensors.numpy.load(data[8 + length :])
    np.testing.assert_array_equal(tensors["vision/f4"], ARRAYS["vision/f4"])


def test_every_code_survives():
    for code in Code:
        assert unpack(Answer, pack(Answer(site="s", refusal=Refusal(code, "x")))).refusal.code is code
    for kind in Kind:
        assert unpack(Ask, pack(dataclasses.replace(ask(), kind=kind))).kind is kind


@pytest.mark.parametrize("version", [0, 2, "1", None, False, 1.5])
@pytest.mark.parametrize("message", [ask(), answer()], ids=["ask", "answer"])
def test_another_protocol_is_named_with_ours(message, version):
    data = fields_of(message) | {"protocol": version}
    with pytest.raises(ProtocolError, match=rf"protocol {version!r}, this side speaks {PROTOCOL}"):
        from_fields(type(message), data, {})


def test_one_is_not_taken_for_the_other():
    with pytest.raises(ProtocolError):
        unpack(Answer, pack(ask()))
    with pytest.raises(ProtocolError):
        unpack(Ask, pack(answer()))


def changed(message, **fields):
    values = json.loads(json.dumps(fields_of(message)))
    for name, value in fields.items():
        if value is ...:
            del values[name]
        else:
            values[name] = value
    return values


@pytest.mark.parametrize(
    "fields",
    [
        {"protocol": True},  # equals 1, yet is no version
        {"kind": "destroy"},
        {"kind": None},
        {"kind": ...},
        {"run": 7},
        {"run": ...},
        {"site": ["north"]},
        {"seed": "7"},
        {"seed": 7.5},
        {"seed": True},
        {"seed": 1 << 70},
        {"round": None},
        {"rounds": "8"},
        {"evaluate": "no"},
        {"evaluate": 1},
        {"model": []},
        {"objective": None},
        {"local_extra": {"proximal_mu": "0.1"}},
        {"local_extra": {"proximal_mu": float("nan")}},
        {"components": "vision"},
        {"components": [1]},
        {"components": None},
        {"keep": {"a": 1}},
        {"bf16": [["a"]]},
        {"wire_dtype": None},
        {"extra": 1},
        {"tensors": {}},
    ],
)
def test_an_ask_with_a_field_of_another_type_is_refused(fields):
    assert equal(from_fields(Ask, changed(ask()), ARRAYS), ask())
    with pytest.raises(ProtocolError):
        from_fields(Ask, changed(ask(), **fields), ARRAYS)


ROW = {"metric": "auroc", "finding": "Edema", "value": 0.5}


@pytest.mark.parametrize(
    "fields",
    [
        {"site": None},
        {"site": ...},
        {"examples": "many"},
        {"examples": 1e3},
        {"examples": True},
        {"facts": "none"},
        {"facts": None},
        {"privacy": [1]},
        {"metrics": None},
        {"metrics": {}},
        {"metrics": ...},
        {"metrics": [3]},
        {"metrics": [{}]},
        {"metrics": [ROW | {"metric": 5}]},
        {"metrics": [ROW | {"metric": None}]},
        {"metrics": [ROW | {"value": "0.5"}]},
        {"metrics": [ROW | {"value": float("nan")}]},
        {"metrics": [ROW | {"value": float("inf")}]},
        {"metrics": [ROW | {"n": 1.5}]},
        {"metrics": [ROW | {"left_out": None}]},
        {"metrics": [ROW | {"unknown": 1}]},
        {"refusal": "no"},
        {"refusal": ...},
        {"refusal": {"code": "because", "text": "x"}},
        {"refusal": {"code": "policy"}},
        {"refusal": {"code": "policy", "text": None}},
        {"refusal": {"code": 3, "text": "x"}},
    ],
)
def test_an_answer_with_a_field_of_another_type_is_refused(fields):
    assert equal(from_fields(Answer, changed(answer()), ARRAYS), answer())
    with pytest.raises(ProtocolError):
        from_fields(Answer, changed(answer(), **fields), ARRAYS)


@pytest.mark.parametrize("values", [None, 3, "text", [], [1], [["protocol", 1]], {}])
def test_something_other_than_fields_is_refused(values):
    for cls in (Ask, Answer):
        with pytest.raises(ProtocolError):
            from_fields(cls, values, {})


WHOLE = {cls: pack(message) for cls, message in ((Ask, ask()), (Answer, answer()))}


@given(st.binary(max_size=300))
@settings(max_examples=200)
def test_any_bytes_are_a_message_or_a_protocol_error(data):
    for cls in (Ask, Answer):
        with pytest.raises(ProtocolError):
            unpack(cls, data)


@given(st.sampled_from([Ask, Answer]), st.data())
@settings(max_examples=300)
def test_a_torn_or_changed_message_is_a_message_or_a_protocol_error(cls, data):
    whole = bytearray(WHOLE[cls])
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    whole = bytes(whole[: data.draw(st.one_of(st.none(), st.integers(0, len(whole))))])
    try:
        found = unpack(cls, whole)
    except ProtocolError:
        return
    assert isinstance(found, cls)
    pack(found)  # whatever came through can be spoken again


@given(
    st.sampled_from([Ask, Answer]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    st.data(),
)
@settings(max_examples=300)
def test_any_json_in_any_field_is_taken_or_refused(cls, value, data):
    message = ask() if cls is Ask else answer()
    name = data.draw(st.sampled_from(sorted(fields_of(message))))
    header = json.dumps(fields_of(message) | {name: value}).encode()
    body = safetensors.numpy.save({})
    try:
        found = unpack(cls, struct.pack("<Q", len(header)) + header + body)
    except ProtocolError:
        return
    hints = {
        "site": str,
        "examples": int,
        "facts": dict,
        "metrics": tuple,
        "round": int,
        "components": tuple,
        "local": dict,
    }
    for field, kind in hints.items():
        assert isinstance(getattr(found, field, kind()), kind)


def test_a_deep_header_is_refused_not_followed():
    header = b'{"a":' * 100_000
    with pytest.raises(ProtocolError):
        unpack(Ask, struct.pack("<Q", len(header)) + header)


def test_a_length_beyond_the_data_is_refused():
    with pytest.raises(ProtocolError):
        unpack(Ask, struct.pack("<Q", 1 << 63) + b"{}")


def test_the_words_are_stable():
    """They stand in ledgers and logs of sites; whoever changes one breaks what reads them."""
    assert {c.value for c in Code} == {
        "bad_request",
        "stale_code",
        "policy",
        "no_data",
        "privacy_not_available",
        "non_finite_loss",
        "out_of_memory",
        "internal_error",
        "trainer_unreachable",
        "wrong_names",
        "wrong_shape",
        "wrong_dtype",
        "non_finite_update",
        "absurd_example_count",
        "update_norm_over_cap",
        "deadline_passed",
        "reply_lost",
        "adapter_mismatch",
        "adapter_part_missing",
    }
