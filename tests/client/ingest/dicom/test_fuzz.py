"""Bytes of valid files flipped, cut and spliced: always an answer, never an exception that nobody foresaw."""

from __future__ import annotations

from collections import Counter
from io import BytesIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread, uid
from pydicom.dataelem import RawDataElement

from client.ingest.codes import Reason
from client.ingest.reading import Reading, Refused
from client.ingest.sandbox import Sandbox
from tests.client.ingest.dicom.maker import chest, dataset, write

_SYNTAXES = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.JPEGLosslessSV1,
    uid.JPEGBaseline8Bit,
)


def values_of(data: bytes) -> list[tuple[int, int]]:
    """Where the short element values of an undamaged, not deflated file lie."""
    whole = dcmread(BytesIO(data), stop_before_pixels=True)
    if whole.file_meta.TransferSyntaxUID == uid.DeflatedExplicitVRLittleEndian:
        return []
    raw = [whole.get_item(tag) for tag in whole.keys()]  # noqa: SIM118 (items would be converted)
    return [(e.value_tell, e.length) for e in raw if isinstance(e, RawDataElement) and e.length]


@pytest.fixture(scope="module")
def valid() -> list[bytes]:
    files = []
    for syntax in _SYNTAXES:
        bits = 8 if syntax == uid.JPEGBaseline8Bit else 12
        small = chest(140, 132, (1 << bits) - 1)
        window = {"WindowCenter": [1000, 2000], "WindowWidth": [800, 4000], "PixelSpacing": [0.2, 0.1]}
        files.append(write(dataset(small, bits, **window), syntax))
    return files


_EDIT = st.tuples(
    st.sampled_from((*["value"] * 4, "flip", "flip", "set", "splice", "drop", "repeat", "cut")),
    st.integers(0, 999_999),  # where
    st.integers(1, 64),  # how long
    st.integers(0, 255),
    st.integers(0, len(_SYNTAXES) - 1),  # from which other file
)


def place(where: int, length: int) -> int:
    """A position in a file: a tenth before the data set, half in the header, the rest anywhere."""
    share, kind = where / 1_000_000, where % 10
    start, end = (0, 132) if kind == 0 else (132, 1300) if kind < 6 else (132, length)
    return max(0, min(length - 1, int(start + share * (end - start))))


Edits = list[tuple[str, int, int, int, int]]


def damage(data: bytes, values: list[tuple[int, int]], edits: Edits, others: list[bytes]) -> bytes:
    """``values`` are the (start, length) of element values in ``data``."""
    for kind, where, length, value, other in edits:
        at = place(where, len(data))
        if kind == "value" and values:
            # A value of the right length but of any content goes deeper than a broken structure does.
            start, size = values[where % len(values)]
            word = bytes([value, other, length, value]) if where % 3 else b"%04d" % where
            data = data[:start] + (word * size)[:size] + data[start + size :]
        elif kind == "flip" and data:
            data = data[:at] + bytes([data[at] ^ (value or 1)]) + data[at + 1 :]
        elif kind == "set":
            data = data[:at] + bytes([value]) * length + data[at + length :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "drop":
            data = data[:at] + data[at + length :]
        elif kind == "splice":
            source = others[other]
            start = place(where, len(source))
            data = data[:at] + source[start : start + 8 * length] + data[at + length * (value % 2) :]
        elif kind == "repeat":
            data = data[:at] + data[at : at + length] * 3 + data[at + length :]
    return data


@pytest.mark.parametrize("cases", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_damaged_files_never_escape(cases: int, valid: list[bytes], sandbox: Sandbox) -> None:
    outcomes: Counter[str] = Counter()
    places = [values_of(data) for data in valid]

    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=cases < 1000,  # the quick run is the same every time, the long one is not
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, len(_SYNTAXES) - 1), st.lists(_EDIT, min_size=1, max_size=4))
    def run(base: int, edits: Edits) -> None:
        result = sandbox.read(damage(valid[base], places[base], edits, valid))
        assert isinstance(result, Reading | Refused)
        if isinstance(result, Refused):
            assert result.reason is not Reason.UNEXPECTED, result.note
            outcomes[result.reason.value] += 1
        else:
            outcomes["accepted"] += 1

    run()
    print(dict(outcomes.most_common()))
    assert outcomes["accepted"] and len(outcomes) > 8, "the damage is too little or too much to prove anything"
