import csv
import dataclasses
import hashlib
import io

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from client.ingest.phantom.encoding import LOSSY, UIDS
from client.ingest.phantom.hospital import write_hospital
from client.ingest.phantom.patients import patients
from client.ingest.phantom.style import STYLES
from client.ingest.reports import Report, ReportFiles
from models.studies.schema import Label

from .conftest import SEED, SIZE

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def rendered(style, lines):
    """The film of every line, rendered again."""
    count = max(int(line["patient"][1:]) for line in lines)
    films = {(f.patient, f.study, f.image): f for f in patients(style, count, SEED, SIZE)}
    return [films[line["patient"], line["study"], line["image"]] for line in lines]


def shown(dataset):
    """Display values in [0, 1] by pydicom's own functions and the standard's definitions."""
    y = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(float)
    top = 2**dataset.BitsStored - 1
    if "VOILUTSequence" in dataset:
        y /= 2 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1
    else:
        # pydicom maps a window onto the range of the rescaled values.
        y = (y - float(dataset.get("RescaleIntercept", 0))) / (float(dataset.get("RescaleSlope", 1)) * top)
    return 1 - y if dataset.PhotometricInterpretation == "MONOCHROME1" else y


@pytest.mark.parametrize("name", STYLES)
def test_decoded_pixels_are_the_rendering(hospital, name):
    out, style, lines = hospital[name]
    for line, film in zip(lines, rendered(style, lines), strict=True):
        dataset = pydicom.dcmread(out / line["file"])
        values = shown(dataset)
        left, right = line["padding"]
        if left or right:
            assert np.all(values[:, :left] < 0.02)
            inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
            assert dataset.PixelPaddingValue == (2**dataset.BitsStored - 1 if inverted else 0)
            values = values[:, left : values.shape[1] - right]
        assert values.shape == film.pixels.shape
        difference = np.abs(values - film.pixels / 255)
        # Rounding costs half a grey level, a sigmoid the ends of the scale, lossy coding a few levels.
        allowed = 0.03 if line["lossy"] else 0.025 if line["window"] == "sigmoid" else 0.004
        assert difference.mean() < allowed, (line["transfer_syntax"], line["window"], difference.mean())


def test_every_encoding_occurs_and_the_header_says_so(hospital):
    seen = set()
    for out, _, lines in hospital.values():
        for line in lines:
            d = pydicom.dcmread(out / line["file"], stop_before_pixels=True)
            seen |= {
                str(d.file_meta.TransferSyntaxUID),
                d.BitsStored,
                line["window"],
                d.PhotometricInterpretation,
            }
            assert str(d.file_meta.TransferSyntaxUID) == line["transfer_syntax"]
            assert d.SOPInstanceUID == line["sop_instance_uid"] and d.StudyInstanceUID == line["study_uid"]
            assert d.AccessionNumber == line["accession"] and d.PatientID == line["patient_id"]
            assert d.StudyDate == line["date"] and d.get("ViewPosition", "") == line["view_position"]
            assert line["view_position"] in ("", {"PA": "PA", "AP": "AP", "LATERAL": "LL"}[line["view"]])
            assert d.Modality in ("CR", "DX") and d.PatientSex == line["sex"]
            assert line["lossy"] == (line["transfer_syntax"] in {str(UIDS[s]) for s in LOSSY})
    wanted = {str(u) for u in UIDS.values()} | {8, 10, 12, 14, 15, 16} | {"MONOCHROME1", "MONOCHROME2"}
    assert wanted | {"none", "linear", "exact", "sigmoid", "table", "two windows"} <= seen


def test_shares_of_the_header_facts(tmp_path):
    """Polarity, missing view and bits as configured, within three standard errors."""
    style = dataclasses.replace(STYLES["east"], studies=1)
    write_hospital(tmp_path / "h", style, 90, 1, 64, workers=2)
    headers = [pydicom.dcmread(f, stop_before_pixels=True) for f in sorted((tmp_path / "h").rglob("0001.dcm"))]
    n = len(headers)
    for share, wanted in (
        (np.mean([d.PhotometricInterpretation == "MONOCHROME1" for d in headers]), style.archive.inverted),
        (np.mean(["ViewPosition" not in d for d in headers]), style.archive.viewless),
        (np.mean([d.BitsStored == 12 for d in headers]), style.archive.bits["12"]),
    ):
        assert abs(share - wanted) < 3 * np.sqrt(wanted * (1 - wanted) / n)


def test_identifiers_are_planted_where_the_truth_says(hospital):
    for out, _, lines in hospital.values():
        for line in lines:
            raw = (out / line["file"]).read_bytes()
            if line["transfer_syntax"] == UIDS["deflated"]:
                continue
            for secret in line["identifiers"]:
                if secret in (line["identifiers"][0], line["identifiers"][1]):
                    assert secret.upper().encode() in raw  # names stand in capitals
                else:
                    assert secret.encode() in raw, secret
            if line["report"]:
                assert all(secret in line["report"]["text"] for secret in line["report"]["identifiers"])


def test_one_patient_one_identity_and_true_intervals(hospital):
    for _, _, lines in hospital.values():
        by_patient = {}
        for line in lines:
            by_patient.setdefault(line["patient"], []).append(line)
        assert len({line["patient_id"] for line in lines}) == len(by_patient)
        for group in by_patient.values():
            assert len({line["patient_id"] for line in group}) == 1
            first = np.datetime64(f"{group[0]['date'][:4]}-{group[0]['date'][4:6]}-{group[0]['date'][6:]}")
            for line in group:
                date = np.datetime64(f"{line['date'][:4]}-{line['date'][4:6]}-{line['date'][6:]}")
                assert (date - first).astype(int) == line["day"]
        uids = [line["sop_instance_uid"] for line in lines if line["repeats"] is None]
        assert len(set(uids)) == len(uids)


def test_repeats_are_copies(hospital):
    repeats = [(out, line) for out, _, lines in hospital.values() for line in lines if line["repeats"]]
    assert repeats
    for out, line in repeats:
        assert (out / line["file"]).read_bytes() == (out / line["repeats"]).read_bytes()


def test_truth_is_that_of_the_films(hospital):
    words = {label.name.lower(): label for label in Label}
    for _, style, lines in hospital.values():
        for line, film in zip(lines, rendered(style, lines), strict=True):
            assert {f: words[word] for f, word in line["labels"].items()} == film.labels
            assert line["severity"] == film.severity
            assert line["progression"] == film.progression and line["change"] == film.change


@pytest.mark.parametrize("name", STYLES)
def test_reports_are_filed_as_the_truth_says(hospital, name):
    """Read back by the site's own reader of reports; strays have no study."""
    out, style, lines = hospital[name]
    how = style.dictation
    path = out / ("reports" if how.kept_as == "folder" else "reports.csv")
    files = ReportFiles(path)
    found = {}
    for report in files:
        assert isinstance(report, Report)
        found[getattr(report, how.key) or report.place.name.removesuffix(".txt")] = files.text(report.place)
    told = {line[how.key]: line["report"]["text"] for line in lines if line["report"] and line["image"] == 0}
    assert told
    for key, text in told.items():
        assert found[key].split() == text.split()
    assert set(found) - set(told) <= {k for k, t in found.items() if "Normal chest" in t}


def test_line_ends_and_encoding(hospital):
    out, _, _ = hospital["south"]
    raw = (out / "reports.csv").read_bytes()
    assert b"\r\n" in raw.split(b'"')[1]
    rows = list(csv.DictReader(io.StringIO(raw.decode("cp1252"), newline=""), delimiter=";"))
    assert {"study_uid", "date", "text"} == set(rows[0])
    out, _, _ = hospital["east"]
    texts = [f.read_bytes() for f in (out / "reports").iterdir()]
    assert any(b"\r" in t for t in texts) and not any(b"\n" in t for t in texts)


def test_same_bytes_whatever_the_workers(tmp_path):
    digests = []
    for k in (1, 2):
        out = tmp_path / str(k)
        write_hospital(out, STYLES["south"], 3, 9, 64, workers=k)
        names = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
        digests.append([(name, hashlib.sha256((out / name).read_bytes()).hexdigest()) for name in names])
    assert digests[0] == digests[1] and len(digests[0]) > 4


def test_nonsense_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one patient"):
        write_hospital(tmp_path, STYLES["north"], 0, 0)
    (tmp_path / "dicom").mkdir()
    with pytest.raises(ValueError, match="already"):
        write_hospital(tmp_path, STYLES["north"], 1, 0)
