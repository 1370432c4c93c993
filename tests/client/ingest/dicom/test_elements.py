"""The walk over data elements: the same elements as pydicom sees, and depth that costs nothing."""

from __future__ import annotations

import struct
from io import BytesIO

import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from client.ingest.codes import Reason
from client.ingest.elements import PIXEL_DATA, Walker
from client.ingest.limits import Limits
from client.ingest.part10 import open_source
from client.ingest.refusal import Refusal
from models.config import build
from tests.client.ingest.dicom.maker import chest, dataset, write
from tests.faults.hostile_dicom import element, good, insert, item, nested

SYNTAXES = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)


def rich() -> Dataset:
    ds = dataset(chest(140, 140))
    inner = Dataset()
    inner.CodeValue, inner.CodeMeaning = "R-10206", "AP"
    inner.ReferencedSOPSequence = Sequence([Dataset(), Dataset()])
    ds.ViewCodeSequence = Sequence([inner, Dataset()])
    ds.RequestAttributesSequence = Sequence([])
    ds.add_new(0x00290010, "LO", "PRIVATE")
    ds.add_new(0x00291001, "OB", b"\xff\xfe\xe0\x0d" * 9)
    ds.add_new(0x00291002, "UT", "t" * 70_000)
    ds.add_new(0x00291003, "SQ", Sequence([inner]))
    return ds


def tops(data: bytes, syntax: str, start: int) -> list[tuple[int, int]]:
    walker = Walker(
        data,
        implicit=syntax == uid.ImplicitVRLittleEndian,
        little=syntax != uid.ExplicitVRBigEndian,
        limits=Limits(),
    )
    return [(e.tag, e.value) for e in walker.top_level(start)]


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_finds_what_pydicom_finds(syntax: str, undefined: bool) -> None:
    ds = rich()
    for sequence in (ds["ViewCodeSequence"], ds[0x00291003]):
        sequence.is_undefined_length = undefined
        for one in sequence.value:
            one.is_undefined_length_sequence_item = undefined
    data = write(ds, syntax)
    parsed = pydicom.dcmread(BytesIO(data))
    (group_length,) = struct.unpack_from("<L", data, 140)
    found = tops(data, syntax, 144 + group_length)
    assert [tag for tag, _ in found] == [int(tag) for tag in parsed.keys()]  # noqa: SIM118
    assert found[-1][0] == PIXEL_DATA
    assert data[found[-1][1] :] == parsed.PixelData


def test_ends_at_the_pixels() -> None:
    data = good() + element(0xFFFCFFFC, b"OB", bytes(100), 10**9)
    assert open_source(data, Limits()).pixels is not None


@pytest.mark.parametrize(("levels", "passes"), [(8, True), (9, False)])
@pytest.mark.parametrize("kind", [{}, {"defined": True}, {"vr": b"UN"}])
def test_nesting_limit_is_exact(levels: int, passes: bool, kind: dict) -> None:
    limits = build(Limits, {"nesting": 8})
    data = insert(good(), nested(levels, **kind))
    if passes:
        open_source(data, limits)
        return
    with pytest.raises(Refusal) as caught:
        open_source(data, limits)
    assert caught.value.reason is Reason.HEADER_LIMIT


def test_malformed_content_of_a_bounded_sequence_is_skipped() -> None:
    junk = element(0x00400275, b"SQ", b"\x01\x02\x03" * 30)
    assert open_source(insert(good(), junk), Limits()).dataset.PatientID == "P1"


def test_stray_delimiters_are_skipped() -> None:
    stray = struct.pack("<HHL", 0xFFFE, 0xE00D, 0) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0) + item(b"1234")
    assert open_source(insert(good(), stray), Limits()).dataset.PatientID == "P1"


def test_only_the_allow_list_is_parsed() -> None:
    ds = rich()
    ds.PatientComments = "free text"
    source = open_source(write(ds), Limits())
    assert "PatientComments" not in source.dataset and "RequestAttributesSequence" not in source.dataset
    assert not any(element.tag.is_private for element in source.dataset)
    assert source.dataset.ViewCodeSequence[0].CodeValue == "R-10206"


def test_meta_that_states_another_encoding() -> None:
    implicit = write(dataset(chest()), uid.ImplicitVRLittleEndian)
    wrong = implicit.replace(b"UI\x12\x001.2.840.10008.1.2\0", b"UI\x14\x001.2.840.10008.1.2.1\0")
    group_length = struct.unpack_from("<L", wrong, 140)[0] + 2
    wrong = wrong[:140] + struct.pack("<L", group_length) + wrong[144:]
    source = open_source(wrong, Limits())
    assert source.dataset.PatientID == "P1" and "encoding_contradicts_meta" in source.notes


def test_file_without_preamble_and_meta() -> None:
    data = write(dataset(chest()), uid.ImplicitVRLittleEndian)
    (group_length,) = struct.unpack_from("<L", data, 140)
    bare = data[144 + group_length :]
    source = open_source(bare, Limits())
    assert source.syntax == uid.ImplicitVRLittleEndian
    assert source.notes == ("no_preamble", "no_transfer_syntax") and source.dataset.PatientID == "P1"
