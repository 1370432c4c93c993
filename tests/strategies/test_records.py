"""Asks and answers as Flower records, also after Flower's own serialisation."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto

from models.evaluation.results import Result
from strategies.messages import WIRE_DTYPES, Answer, Ask, Code, Kind, ProtocolError, Refusal, pack
from strategies.records import from_record, to_record
from strategies.wire import from_wire, to_wire

OWN = {
    "vision/w": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "logit/scale": torch.tensor(2.5),
    "vision/empty": torch.zeros(0, 3),
    "vision/one": torch.ones(1),
}


def ask(dtype: str = "float32") -> Ask:
    tensors, bf16 = to_wire(OWN, dtype)
    return Ask(Kind.TRAIN, "run", "north", 7, "ab", "cd", components=("vision", "logit"), bf16=bf16, tensors=tensors)


def answer(dtype: str = "float32") -> Answer:
    tensors, bf16 = to_wire(OWN, dtype)
    metrics = (Result("auroc", "Edema", 0.5, n=3), Result("bce_loss", None, 0.7, n=9))
    return Answer(site="north", examples=3, metrics=metrics, bf16=bf16, tensors=tensors)


def over_flower(record: RecordDict) -> RecordDict:
    """What arrives at the other end of a real link: through protobuf bytes."""
    proto = recorddict_to_proto(record)
    return recorddict_from_proto(type(proto).FromString(proto.SerializeToString()))


@pytest.mark.parametrize("dtype", WIRE_DTYPES)
@pytest.mark.parametrize("make", [ask, answer])
@pytest.mark.parametrize("link", [lambda r: r, over_flower], ids=["direct", "protobuf"])
def test_a_message_comes_back_as_it_was_and_its_tensors_bit_for_bit(dtype, make, link):
    message = make(dtype)
    back = from_record(type(message), link(to_record(message)))
    assert pack(back) == pack(message)
    tensors = from_wire(back.tensors, back.bf16, OWN)
    for name, own in OWN.items():
        assert tensors[name].shape == own.shape
        assert torch.equal(tensors[name], own.to(getattr(torch, dtype)).float())


@pytest.mark.parametrize(
    "message",
    [
        Answer(site="north", refusal=Refusal(Code.NO_DATA, "no training films")),
        Answer(site="north", facts={"train": {"films": 3}}),
        Ask(Kind.HELLO, "run", "", 7, "ab", "cd"),
    ],
)
def test_a_message_without_tensors_is_one_record(message):
    record = to_record(message)
    assert list(record) == ["run" if isinstance(message, Ask) else "answer"]
    assert from_record(type(message), over_flower(record)) == message


def fields(message) -> ConfigRecord:
    return next(iter(to_record(message).config_records.values()))


@pytest.mark.parametrize(
    "record",
    [
        RecordDict(),
        RecordDict({"run": fields(ask())}),  # an ask is no answer
        RecordDict({"answer": fields(answer()), "second": ConfigRecord({})}),
        RecordDict({"answer": fields(answer()), "model": ArrayRecord(), "model2": ArrayRecord()}),  # two array records
        RecordDict({"answer": fields(answer()), "metrics": MetricRecord({"num-examples": 3})}),
        RecordDict({"answer": ConfigRecord({})}),
        RecordDict({"answer": ConfigRecord({"json": "{"})}),
        RecordDict({"answer": ConfigRecord({"json": 3})}),
        RecordDict({"answer": ConfigRecord({"json": "[1]"})}),
        RecordDict({"answer": ConfigRecord({"json": "null"})}),
        RecordDict({"answer": ConfigRecord({"json": json.dumps({"protocol": 99})})}),
        RecordDict({"answer": ArrayRecord({"json": Array(np.zeros(1))})}),
        RecordDict({"answer": fields(answer()), "model": ConfigRecord({"a": 1})}),
        RecordDict(
            {
                "answer": fields(answer()),
                "model": ArrayRecord({"a": Array("float32", (3,), "numpy.ndarray", b"junk")}),
            }
        ),
        RecordDict(
            {
                "answer": fields(answer()),
                "model": ArrayRecord({"a": Array("float32", (3,), "torch", b"junk")}),
            }
        ),
    ],
)
def test_records_that_do_not_follow_the_contract_are_a_protocol_error(record):
    with pytest.raises(ProtocolError):
        from_record(Answer, record)


def test_an_array_that_would_unpickle_is_refused_and_not_run(tmp_path):
    """An object array in numpy's file format is a pickle; reading it must not run it."""
    import io
    import os

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb()], dtype=object), allow_pickle=True)
    bad = ArrayRecord({"a": Array("object", (1,), "numpy.ndarray", buffer.getvalue())})
    with pytest.raises(ProtocolError):
        from_record(Answer, RecordDict({"answer": fields(answer()), "model": bad}))
    assert not (tmp_path / "exploded").exists()
    np.load(io.BytesIO(buffer.getvalue()), allow_pickle=True)  # the control: the array is live
    assert (tmp_path / "exploded").exists()
