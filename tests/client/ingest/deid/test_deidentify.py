"""What an exported data set holds, value by value, and what stops an export."""

from __future__ import annotations

import datetime
import io
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.sr.codedict import codes

from client.ingest import deidentify as deid
from client.ingest.codes import Reason
from client.ingest.decode import decode
from client.ingest.export import ExportConfig, Exporter, dicom_bytes
from client.ingest.gate import Gate
from client.ingest.header import Header
from client.ingest.journal import StoreWriteError
from client.ingest.limits import Limits
from client.ingest.ps315 import TableError, load_table
from client.ingest.pseudonym import Pseudonyms
from client.ingest.radiograph import Radiograph, read_radiograph, serve
from client.ingest.refusal import Refusal
from client.ingest.siteindex import SiteIndex
from client.ingest.voi import Lut, Rescale, Window
from models.config import ConfigError, build

HEADER = Header(
    patient_id="12345",
    patient_sex="F",
    patient_age="047Y",
    study_instance_uid="1.2.3",
    series_instance_uid="1.2.3.4",
    sop_instance_uid="1.2.3.4.5",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
    study_date="20200229",
    study_time="143507.123",
    acquisition_date="20200301",
    modality="DX",
    view_position="PA",
    image_type="ORIGINAL\\PRIMARY\\SMITH",
    series_number="1",
    instance_number="20200301",
    patient_orientation="L\\F",
)


IDENTIFYING = (
    *(
        "patient_id",
        "patient_name",
        "patient_birth_date",
        "accession_number",
        "study_id",
        "study_date",
        "study_time",
    ),
    *("study_instance_uid", "series_instance_uid", "sop_instance_uid", "institution_name", "station_name"),
    *("referring_physician_name", "operators_name", "study_description", "acquisition_date", "content_time"),
)


def radiograph(header: Header = HEADER, **changes) -> Radiograph:
    values = dict(
        header=header,
        view="PA",
        chest=True,
        photometric="MONOCHROME2",
        allocated=16,
        stored=12,
        signed=False,
        pixels=np.arange(12, dtype=np.uint16).reshape(3, 4) * 300,
        modality=Rescale(2.0, -10.0),
        vois=(Window(2048.0, 4096.0),),
        spacing={"ImagerPixelSpacing": (0.143, 0.143)},
    )
    return Radiograph(**(values | changes))


def made(pseudonyms: Pseudonyms, image: Radiograph | None = None) -> pydicom.Dataset:
    """Through bytes and back, as a reader would see it."""
    dataset = deid.deidentify(image or radiograph(), pseudonyms, load_table())
    return pydicom.dcmread(io.BytesIO(dicom_bytes(dataset)))


def test_codes_are_those_of_the_dictionary() -> None:
    group = codes.cid7050
    known = {getattr(group, name).value: getattr(group, name).meaning for name in group.dir()}
    assert {code: known[code] for code in deid.OPTIONS} == deid.OPTIONS
    views = {getattr(codes.cid4010, name).value for name in codes.cid4010.dir()}
    assert {code for code, _ in deid._VIEW_CODES.values()} <= views
    assert codes.cid4009.Chest.value == "816094009"


def test_conformance_fields(pseudonyms: Pseudonyms) -> None:
    dataset = made(pseudonyms)
    assert dataset.PatientIdentityRemoved == "YES"
    assert "2026c" in dataset.DeidentificationMethod and len(dataset.DeidentificationMethod) <= 64
    assert [c.CodeValue for c in dataset.DeidentificationMethodCodeSequence] == ["113100", "113107", "113108"]
    assert dataset.LongitudinalTemporalInformationModified == "MODIFIED"
    assert "BurnedInAnnotation" not in dataset  # never claimed where the source does not say so


def test_values(pseudonyms: Pseudonyms) -> None:
    dataset = made(pseudonyms)
    shift = pseudonyms.shift("12345")
    assert dataset.PatientID == dataset.PatientName == pseudonyms.exported_patient("12345")
    assert dataset.StudyDate == (datetime.date(2020, 2, 29) + shift).strftime("%Y%m%d")
    assert dataset.AcquisitionDate == (datetime.date(2020, 3, 1) + shift).strftime("%Y%m%d")
    assert dataset.StudyTime == "140000"
    assert (dataset.PatientSex, dataset.PatientAge, dataset.PatientBirthDate) == ("F", "040Y", "")
    assert list(dataset.ImageType) == ["ORIGINAL", "PRIMARY"]
    assert dataset.SeriesNumber == 1 and dataset.InstanceNumber is None  # a date in disguise is no index
    assert dataset.PatientOrientation == ["L", "F"]
    assert (dataset.WindowCenter, dataset.WindowWidth, dataset.RescaleIntercept) == (2048, 4096, -10)
    assert dataset.AccessionNumber == dataset.StudyID == dataset.Manufacturer == ""
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    assert np.array_equal(dataset.pixel_array, radiograph().pixels)


@pytest.mark.parametrize(
    ("change", "age"),
    [
        ({"patient_age": "007M"}, "000Y"),
        ({"patient_age": "095Y"}, "090Y"),
        ({"patient_age": "", "patient_birth_date": "19500301"}, "060Y"),  # a day before the 70th birthday
        ({"patient_age": "", "patient_birth_date": "19500228"}, "070Y"),
        ({"patient_age": "47", "patient_birth_date": ""}, None),
        ({"patient_age": "", "patient_birth_date": "20300101"}, None),
    ],
)
def test_ages_are_bands(pseudonyms: Pseudonyms, change: dict[str, str], age: str | None) -> None:
    assert made(pseudonyms, radiograph(replace(HEADER, **change))).get("PatientAge") == age


@pytest.mark.parametrize(
    "field",
    [
        "patient_sex",
        "view_position",
        "patient_orientation",
        "image_type",
        "study_time",
        "series_number",
        "patient_age",
        "study_date",
        "burned_in_annotation",
    ],
)
def test_free_text_in_a_kept_value_is_dropped(pseudonyms: Pseudonyms, field: str) -> None:
    dataset = made(pseudonyms, radiograph(replace(HEADER, **{field: "SMITH\\JOHN"})))
    assert "SMITH" not in str(dataset) and "JOHN" not in str(dataset)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"burned_in_annotation": "YES"}, Reason.BURNED_IN_DECLARED),
        ({"burned_in_annotation": "yes "}, Reason.BURNED_IN_DECLARED),
        ({"patient_id": ""}, Reason.NO_PATIENT_ID),
        ({"study_instance_uid": ""}, Reason.MISSING_UID),
        ({"sop_instance_uid": ""}, Reason.MISSING_UID),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.7"}, Reason.WRONG_MODALITY),  # secondary capture
        ({"modality": "CT"}, Reason.WRONG_MODALITY),
    ],
)
def test_refusals(pseudonyms: Pseudonyms, change: dict[str, str], reason: Reason) -> None:
    with pytest.raises(Refusal) as refused:
        deid.deidentify(radiograph(replace(HEADER, **change)), pseudonyms, load_table())
    assert refused.value.reason is reason


def test_a_newer_table_can_only_take_away(pseudonyms: Pseudonyms) -> None:
    table = load_table()
    newer = replace(table, edition="2031a", exact={**table.exact, 0x00185101: "X"})  # ViewPosition
    with pytest.raises(TableError, match=r"ViewPosition \(0018,5101\): table 2031a says X"):
        deid.deidentify(radiograph(), pseudonyms, newer)


@pytest.mark.parametrize("keyword", ["PatientComments", "InstitutionName", "KVP"])
def test_the_audit_denies_by_default(keyword: str) -> None:
    dataset = pydicom.Dataset()
    setattr(dataset, keyword, "1")
    with pytest.raises(TableError, match=keyword):
        deid.audit(dataset, load_table())
    outer = pydicom.Dataset()
    outer.VOILUTSequence = [dataset]
    with pytest.raises(TableError, match=keyword):
        deid.audit(outer, load_table())
    private = pydicom.Dataset()
    private.add_new(0x00090010, "LO", "VENDOR")
    with pytest.raises(TableError, match="private"):
        deid.audit(private, load_table())


def test_nothing_kept_has_a_row_and_every_row_written_is_an_option_or_a_dummy() -> None:
    table = load_table()
    for keyword, treatment in deid.WRITTEN.items():
        action = table.action(pydicom.datadict.tag_for_keyword(keyword))
        assert action is None or treatment != "kept", keyword
        if treatment == "empty" and action is not None:
            assert "Z" in action, keyword


@pytest.mark.parametrize(
    ("allocated", "stored", "signed"), [(8, 8, False), (8, 7, True), (16, 12, True), (16, 16, True)]
)
def test_pixels_survive(pseudonyms: Pseudonyms, allocated: int, stored: int, signed: bool) -> None:
    words = np.random.default_rng(0).integers(0, 1 << stored, (5, 7)).astype(np.uint8 if allocated == 8 else np.uint16)
    image = radiograph(allocated=allocated, stored=stored, signed=signed, pixels=words, padding=(3,))
    dataset = made(pseudonyms, image)
    expected = words.astype(int)
    if signed:
        expected = np.where(expected >= 1 << (stored - 1), expected - (1 << stored), expected)
    assert np.array_equal(dataset.pixel_array, expected)
    assert dataset.PixelPaddingValue == 3


def test_tables_survive(pseudonyms: Pseudonyms) -> None:
    rising = Lut(-100, np.arange(0, 4096, 4, dtype=np.uint16), 12)
    image = radiograph(signed=True, vois=(rising,), modality=Lut(0, np.arange(500, 0, -1, dtype=np.uint16), 10))
    again = read_radiograph(
        dicom_bytes(deid.deidentify(replace(image, pixels=wide()), pseudonyms, load_table())),
        Gate(),
        Limits(),
        5,
    )
    assert isinstance(again.vois[0], Lut) and isinstance(again.modality, Lut)
    assert again.vois[0].first == -100 and np.array_equal(again.vois[0].entries, rising.entries)
    assert np.array_equal(again.modality.entries, np.arange(500, 0, -1))


def wide() -> np.ndarray:
    y, x = np.mgrid[0:160, 0:160] / 160
    return (2000 * x * y + 1000 * y).astype(np.uint16)


def test_a_table_that_could_hold_text_is_refused(sentinels) -> None:
    dataset = pydicom.Dataset()
    text = np.frombuffer(b"SMITH^JOHN" * 100, "<u2")
    item = pydicom.Dataset()
    item.add_new(0x00283002, "US", [len(text), 0, 16])
    item.add_new(0x00283006, "OW", text.tobytes())
    dataset.VOILUTSequence = [item]
    source = pydicom.dcmread(
        io.BytesIO(dicom_bytes(deid.deidentify(radiograph(pixels=wide()), Pseudonyms(b"x" * 16), load_table())))
    )
    source.VOILUTSequence = dataset.VOILUTSequence
    out = io.BytesIO()
    source.save_as(out)
    with pytest.raises(Refusal, match="bad_header: voi"):
        read_radiograph(out.getvalue(), Gate(), Limits(), 5)
    source.ModalityLUTSequence = dataset.VOILUTSequence
    out = io.BytesIO()
    source.save_as(out)
    with pytest.raises(Refusal, match="bad_header: modality"):
        read_radiograph(out.getvalue(), Gate(), Limits(), 5)


def test_writing_in_the_image_is_refused(sentinels) -> None:
    picture = sentinels.chest(512, 480)
    picture[:40] = 0
    letters = np.zeros(picture.shape, np.uint8)
    cv2.putText(letters, "SMITH JOHN 1950", (10, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 255, 2)
    picture[letters > 128] = 4000
    with pytest.raises(Refusal, match="burned_in_text"):
        read_radiograph(sentinels.plant(pixels=picture).data, Gate(), Limits(), 5)
    read_radiograph(sentinels.plant(pixels=sentinels.chest(512, 480)).data, Gate(), Limits(), 5)


def answer_of(image: Radiograph) -> tuple[dict, bytes]:
    return json.loads(json.dumps(image.plain())), image.pixels.tobytes()


def test_a_second_run_adds_nothing_and_a_changed_image_conflicts(tmp_path: Path, pseudonyms: Pseudonyms) -> None:
    exporter = Exporter(tmp_path / "out", pseudonyms)
    first = exporter.write(*answer_of(radiograph()))
    before = first.read_bytes()
    assert exporter.write(*answer_of(radiograph())) == first and first.read_bytes() == before
    changed = radiograph(pixels=radiograph().pixels + 1)
    assert exporter.write(*answer_of(changed)) is Reason.CONFLICTING_DUPLICATE
    assert exporter.counts == {"exported": 1, "duplicate": 1, "conflicting_duplicate": 1}
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == [first]


def test_a_run_through_child_processes(tmp_path: Path, pseudonyms: Pseudonyms, sentinels) -> None:
    good, cut, text = tmp_path / "a.dcm", tmp_path / "b.dcm", tmp_path / "c.txt"
    good.write_bytes(sentinels.plant().data)
    cut.write_bytes(sentinels.plant().data[:-2000])
    text.write_text("no image")
    exporter = Exporter(tmp_path / "out", pseudonyms)
    results = dict(exporter.run([good, cut, text, tmp_path / "gone"], workers=2))
    assert isinstance(results[good], Path) and results[good].exists()
    assert [results[p] for p in (cut, text)] == [Reason.TRUNCATED, Reason.NOT_DICOM]
    assert results[tmp_path / "gone"] is Reason.MISSING_FILE
    assert exporter.counts == {"exported": 1, "truncated": 1, "not_dicom": 1, "missing_file": 1}


def test_a_disputed_study_is_not_exported(tmp_path: Path, pseudonyms: Pseudonyms) -> None:
    with SiteIndex(tmp_path / "index", tmp_path / "store") as index:
        exporter = Exporter(tmp_path / "out", pseudonyms, index=index)
        index.add_study("one", pseudonyms.study("1.2.3"))
        assert isinstance(exporter.write(*answer_of(radiograph())), Path)
        index.add_study("another", pseudonyms.study("1.2.3"))
        assert exporter.write(*answer_of(radiograph())) is Reason.STUDY_TWO_PATIENTS


def test_codes_of_the_child_are_counted(tmp_path: Path, pseudonyms: Pseudonyms) -> None:
    exporter = Exporter(tmp_path / "out", pseudonyms)
    path = tmp_path / "x.dcm"
    path.write_bytes(b"no dicom")
    answer, pixels = serve(exporter.task(path))
    assert pixels is None and exporter.write(answer, b"") is Reason.NOT_DICOM
    assert exporter.write(serve(exporter.task(tmp_path / "absent"))[0], b"") is Reason.MISSING_FILE


def test_an_old_table_exports_nothing(tmp_path: Path, pseudonyms: Pseudonyms) -> None:
    with pytest.raises(TableError, match="max_days"):
        Exporter(tmp_path / "out", pseudonyms, today=datetime.date(2040, 1, 1))
    assert not (tmp_path / "out").exists()
    assert (
        "days old" in Exporter(tmp_path / "out", pseudonyms, today=load_table().as_of + datetime.timedelta(400)).warning
    )


def test_an_unwritable_folder_is_said_so(tmp_path: Path, pseudonyms: Pseudonyms) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreWriteError):
        Exporter(tmp_path / "file" / "out", pseudonyms)
    exporter = Exporter(tmp_path / "out", pseudonyms)
    (tmp_path / "out" / pseudonyms.exported_patient("12345")).write_text("in the way")
    with pytest.raises(StoreWriteError):
        exporter.write(*answer_of(radiograph()))


def test_what_an_export_may_not_accept() -> None:
    for key, value in (("burned_in", "accept"), ("patient_id", "allow_absent")):
        with pytest.raises(ConfigError, match=f"gate.{key}"):
            build(ExportConfig, {"gate": {key: value}})


KEYS = list(radiograph().plain())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(KEYS), JSON, st.binary(max_size=40) | st.just(radiograph().pixels.tobytes()))
@settings(max_examples=120, deadline=None)
def test_a_lying_child_is_seen_through(key: str, lie: object, data: bytes) -> None:
    """Whatever a child sends: a ValueError, or a radiograph that passes every check."""
    try:
        image = Radiograph.from_plain({**radiograph().plain(), key: lie}, data)
    except ValueError:
        return
    deid.audit(deid.deidentify(replace(image, header=HEADER), Pseudonyms(b"x" * 16), load_table()), load_table())


@pytest.mark.real
def test_real_files_look_the_same_after_export(tmp_path: Path, dev_data: Path, pseudonyms: Pseudonyms) -> None:
    """Every real file is exported or refused with a code; the picture that models see does not change."""
    gate = Gate(body_part="any", animals=True)
    exporter = Exporter(tmp_path / "out", pseudonyms, ExportConfig(gate=gate))
    same = searched = 0
    for path in sorted(p for p in (dev_data / "dicom").rglob("*") if p.is_file() and p.stat().st_size < 700_000):
        answer, pixels = serve(exporter.task(path))
        result = exporter.write(json.loads(json.dumps(answer)), b"" if pixels is None else pixels.tobytes())
        if isinstance(result, Path):
            assert np.array_equal(decode(path).pixels, decode(result).pixels)
            written = result.read_bytes()
            for name in IDENTIFYING:
                for value in str(answer["header"].get(name, "")).replace("^", "\\").split("\\"):
                    assert len(value) < 5 or value.encode() not in written, name
                    searched += len(value) >= 5
            same += 1
    assert same >= 20 and searched >= 100 and sum(exporter.counts.values()) >= 150
    assert not {"unexpected", "crashed"} & set(exporter.counts)
