"""What one row of a store may hold: the schema's allow-list, applied before anything is written."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from client.ingest.keys import KEY_LENGTH
from models.studies.schema import AGE_BANDS, COLUMNS, LABEL_PREFIX, SEXES, VIEWS, Label

_KEY = re.compile(rf"[0-9a-f]{{{KEY_LENGTH}}}")
_SOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}")
_FLAG = r"[a-z][a-z0-9-]*(?::-?[0-9.]+)?"
_FLAGS = re.compile(rf"{_FLAG}(?:,{_FLAG})*")
_ASSIGNED = ("shard", "offset", "height", "width", "prior")
_GIVEN = (*(name for name in COLUMNS if name not in _ASSIGNED), f"{LABEL_PREFIX}<finding>")
_VOCABULARY = {"view": VIEWS, "sex": SEXES, "age_band": AGE_BANDS}
_LARGEST = 2**30
_CODES = {label.value for label in Label}


class RowError(ValueError):
    """A row that the schema does not allow. The text names the column, never a patient or a file."""


def check_row(row: Mapping[str, Any], label_columns: Collection[str]) -> dict[str, Any]:
    """A copy of ``row`` with the vocabularies' UNKNOWN filled in and empty values left out.

    Raises:
        RowError: a column, type or value that is not allowed.
    """
    values: dict[str, Any] = dict.fromkeys(_VOCABULARY, "UNKNOWN")
    for name, value in row.items():
        if name.startswith(LABEL_PREFIX):
            _check_label(name, value, label_columns)
        elif name not in COLUMNS:
            raise RowError(f"column {name!r} is not in the schema; allowed: {', '.join(_GIVEN)}")
        elif name in _ASSIGNED:
            raise RowError(f"column {name!r} is assigned by the writer; leave it out")
        if value is not None:
            values[name] = value
    for name in ("image", "patient", "study", "digest"):
        value = values.get(name)
        if not isinstance(value, str) or not _KEY.fullmatch(value):
            raise RowError(f"column {name!r}: a keyed hash ({KEY_LENGTH} hexadecimal digits) is needed; use keyed()")
    for name, allowed in _VOCABULARY.items():
        if values[name] not in allowed:
            raise RowError(f"column {name!r}: a value outside its vocabulary; allowed: {', '.join(allowed)}")
    for name in ("day", "order"):
        value = values.get(name, 0)
        if type(value) is not int or abs(value) >= _LARGEST:
            raise RowError(f"column {name!r}: an integer below 2^30 in size is needed")
    if not isinstance(values.get("source"), str) or not _SOURCE.fullmatch(values["source"]):
        raise RowError("column 'source': a short name is needed (letters, digits, . _ + -; at most 40)")
    if "flags" in values and not (isinstance(values["flags"], str) and _FLAGS.fullmatch(values["flags"])):
        raise RowError("column 'flags': comma-separated words of a-z, 0-9 and - are needed, as in 'cut,inverted:0.9'")
    check_text(values)
    return values


def check_pixels(pixels: np.ndarray, short_side: int) -> memoryview:
    """The bytes of ``pixels``, row by row.

    Raises:
        RowError: not uint8 [height, width], empty, or a short side over ``short_side``.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or 0 in pixels.shape:
        raise RowError(f"pixels: uint8 [height, width] expected, got {pixels.dtype} {list(pixels.shape)}")
    if min(pixels.shape) > short_side:
        raise RowError(f"pixels: short side {min(pixels.shape)} is over this store's {short_side}; resize before add()")
    return memoryview(np.ascontiguousarray(pixels)).cast("B")


def check_text(values: Mapping[str, Any]) -> None:
    """Refuse a report section that is not text or ``None``.

    Raises:
        RowError
    """
    for name in ("findings", "impression"):
        if not isinstance(values.get(name), str | None):
            raise RowError(f"column {name!r}: text is needed")


def _check_label(name: str, value: Any, label_columns: Collection[str]) -> None:
    if name not in label_columns:
        raise RowError(f"column {name!r}: no CheXpert class and not among this store's free labels; declare it")
    if not isinstance(value, int) or isinstance(value, bool) or value not in _CODES:
        codes = ", ".join(f"{label.value} ({label.name})" for label in Label)
        raise RowError(f"column {name!r}: one of {codes} is needed")
