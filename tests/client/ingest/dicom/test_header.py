"""Header values: read, cut, never shown."""

from __future__ import annotations

import dataclasses

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from client.ingest.codes import Reason
from client.ingest.header import MAX_VALUE, Header, read_header
from client.ingest.limits import Limits
from client.ingest.part10 import open_source
from client.ingest.refusal import Refusal
from tests.client.ingest.dicom.maker import chest, dataset, header, write
from tests.faults.hostile_dicom import good, put


def test_every_field_is_read_from_its_element() -> None:
    ds = Dataset()
    fields = [f for f in dataclasses.fields(Header) if f.default == ""]
    assert len(fields) > 50
    from client.ingest.header import _KEYWORD_OF

    for field in fields:
        ds.add_new(_KEYWORD_OF[field.name], "LO", f"value of {field.name}")
    read = read_header(ds)
    for field in fields:
        assert getattr(read, field.name) == f"value of {field.name}"


def test_several_values_names_and_codes() -> None:
    ds = header(OtherPatientIDs=["A", "B"], PatientName="Müller^Jörg=山田^太郎")
    code = Dataset()
    code.CodeValue = "R-10206"
    ds.ViewCodeSequence = Sequence([code])
    read = read_header(ds)
    assert read.other_patient_ids == "A\\B"
    assert read.patient_name == "Müller^Jörg=山田^太郎"
    assert read.image_type == "ORIGINAL\\PRIMARY"
    assert read.view_codes == ("R-10206",) and read.damaged == ()


def test_absent_is_empty() -> None:
    assert read_header(Dataset()) == Header()
    assert read_header(header(PatientID=None, StudyDate="")).patient_id == ""


def test_long_values_are_cut_and_named() -> None:
    ds = dataset(chest(140, 140))
    ds.add_new("PatientName", "LT", "A" * 2000)
    ds.add_new("StudyDescription", "LT", "B\0\x1b\n" * 100)
    read = read_header(open_source(write(ds), Limits()).dataset)
    assert read.patient_name == "A" * MAX_VALUE and read.damaged == ("patient_name",)
    assert read.study_description == "B" * 100


@pytest.mark.parametrize(
    "charset", [b"CSISO_IR 999", b"CSISO 2022 IR 87", b"CS\xff\xff\xff\xff", b"UL\x01\x00\x00\x00"]
)
def test_bad_character_set_never_raises(charset: bytes) -> None:
    data = put(good(), "SpecificCharacterSet", charset)
    try:
        source = open_source(data, Limits())
    except Refusal as refusal:
        assert refusal.reason is Reason.BAD_HEADER
        return
    read = read_header(source.dataset)
    assert read.patient_id == "P1" or "patient_id" in read.damaged


def test_shows_nothing() -> None:
    read = read_header(header())
    assert "Doe" in read.patient_name
    assert "Doe" not in f"{read!r} {read} {[read]}"


def test_plain_round_trip() -> None:
    read = read_header(header())
    assert Header.from_plain(read.plain()) == read
    assert Header.from_plain({}) == Header()
