"""Asks and answers as Flower records: record ``run`` (or ``answer``) holds the fields as one JSON text, record
``model`` the tensors by flat name. Works on both sides; imports no torch.
"""

from __future__ import annotations

import json
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from strategies.messages import Answer, Ask, ProtocolError, fields_of, from_fields

MODEL = "model"
FIELDS = {Ask: "run", Answer: "answer"}


def to_record(message: Ask | Answer) -> RecordDict:
    """An ask or an answer as a Flower ``RecordDict``."""
    record = RecordDict({FIELDS[type(message)]: ConfigRecord({"json": json.dumps(fields_of(message))})})
    if message.tensors:
        record[MODEL] = ArrayRecord({name: Array(array) for name, array in message.tensors.items()})
    return record


def from_record(cls: type, record: RecordDict) -> Any:
    """The inverse of :func:`to_record`.

    Raises:
        ProtocolError: records are missing, extra, or malformed.
    """
    name = FIELDS[cls]
    extra = sorted(set(record) - {name, MODEL})
    if name not in record or extra:
        raise ProtocolError(f"expected the records {name!r} and {MODEL!r}, found {sorted(record)}")
    try:
        values = json.loads(record[name]["json"])
        arrays = {key: array.numpy() for key, array in record[MODEL].items()} if MODEL in record else {}
    except Exception as error:  # numpy's reader of a malformed array raises what it likes
        raise ProtocolError(f"record cannot be read ({type(error).__name__})") from None
    return from_fields(cls, values, arrays)
