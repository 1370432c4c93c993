"""From DICOM files and reports to a store, judged by the phantom's truth and by files made by hand."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.ingest.codes import ADVICE, Reason
from client.ingest.intake import Settings, Summary
from client.ingest.journal import StoreWriteError
from client.ingest.pseudonym import Pseudonyms
from client.ingest.reading import ReadConfig
from client.ingest.reports import ReportsConfig
from client.ingest.siteindex import IndexFileError
from client.ingest.walk import files_below
from client.ingest.writer import StoreWriter
from models.config import ConfigError, build
from models.studies.pairing import PairingRules
from models.studies.store import Store
from tests.client.ingest.dicom import maker
from tests.client.ingest.intake.conftest import SECRET, Hospital, Site

P = Pseudonyms(SECRET)


@pytest.fixture(scope="module")
def taken(hospital: Hospital, tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, Summary]:
    """The hospital's store, and what its ingest said."""
    site = Site(tmp_path_factory.mktemp("taken"))
    return site, site.ingest(hospital.reports, hospital.dicom)


def test_every_film_of_the_phantom_is_taken_in_once(taken: tuple[Site, Summary], hospital: Hospital) -> None:
    site, summary = taken
    own = [line for line in hospital.truth if line["repeats"] is None]
    assert summary.accepted == len(own)
    assert summary.duplicate == len(hospital.truth) - len(own) > 0
    assert summary.changed == summary.withdrawn == summary.replaced == 0
    by_image = {row["image"]: row for row in site.rows()}
    assert set(by_image) == {P.image(line["sop_instance_uid"]) for line in own}
    for line in own:
        row = by_image[P.image(line["sop_instance_uid"])]
        assert row["study"] == P.study(line["study_uid"])
        assert row["day"] == line["day"]
        assert row["view"] in (line["view"], "UNKNOWN")
        assert row["sex"] == line["sex"] and row["source"] == "north"
    assert {row["view"] for row in site.rows()} >= {"PA", "AP"}


def test_texts_are_those_of_their_study_without_identifiers(taken: tuple[Site, Summary], hospital: Hospital) -> None:
    site, summary = taken
    with_report = {line["study_uid"] for line in hospital.truth if line["report"]}
    assert summary.reports["matched"] == summary.reports["written"] == len(with_report)
    strays = len(list(csv.DictReader(hospital.reports.open(newline="")))) - len(with_report)
    assert summary.quarantined.get("report_unmatched", 0) == strays
    without = {line["study_uid"] for line in hospital.truth} - with_report
    assert summary.quarantined.get("study_without_report", 0) == len(without)
    rows = {row["study"]: row for row in site.rows()}
    words = 0
    for line in hospital.truth:
        row = rows[P.study(line["study_uid"])]
        text = " ".join(filter(None, (row["findings"], row["impression"])))
        assert bool(text) == bool(line["report"])
        for identifier in line["identifiers"] + (line["report"]["identifiers"] if line["report"] else []):
            assert identifier.lower() not in text.lower()
        if line["report"]:
            said = " ".join(filter(None, (line["report"]["findings"], line["report"]["impression"])))
            words += len(set(said.lower().split()) & set(text.lower().split())) / len(set(said.lower().split()))
    assert words / sum(bool(line["report"]) for line in hospital.truth) > 0.9  # the text is there, not only harmless


def test_priors_are_those_of_the_truth(taken: tuple[Site, Summary], hospital: Hospital) -> None:
    site, summary = taken
    rows = {row["image"]: row for row in site.rows()}
    studies: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for line in hospital.truth:
        row = rows[P.image(line["sop_instance_uid"])]
        studies[line["patient_id"]].setdefault(line["study_uid"], {"day": line["day"], "views": set()})["views"].add(
            row["view"]
        )

    def same_kind(a: str, b: str) -> bool:
        return "UNKNOWN" not in (a, b) and (a == "LATERAL") == (b == "LATERAL")

    pairs = 0
    for line in hospital.truth:
        row = rows[P.image(line["sop_instance_uid"])]
        before = [
            (study["day"], uid)
            for uid, study in studies[line["patient_id"]].items()
            if study["day"] < line["day"] and any(same_kind(row["view"], view) for view in study["views"])
        ]
        expected = P.study(max(before)[1]) if before else None
        assert row["prior"] == expected
        pairs += expected is not None and line["repeats"] is None
    assert summary.pairs == pairs > 0


def test_a_second_run_adds_nothing(
    taken: tuple[Site, Summary], hospital: Hospital, contents: Callable[[Path], dict[str, str]]
) -> None:
    site, first = taken
    before = contents(site.store)
    again = site.ingest(hospital.reports, hospital.dicom)
    assert (again.accepted, again.duplicate) == (0, first.accepted + first.duplicate)
    assert (again.quarantined, again.pairs) == (first.quarantined, first.pairs)
    assert contents(site.store) == before


def test_the_number_of_children_changes_no_byte(
    taken: tuple[Site, Summary], hospital: Hospital, tmp_path: Path, contents: Callable[[Path], dict[str, str]]
) -> None:
    other = Site(tmp_path)
    other.ingest(hospital.reports, hospital.dicom, workers=3)
    assert contents(other.store) == contents(taken[0].store)


def test_without_the_private_index_all_is_found_again(
    taken: tuple[Site, Summary], hospital: Hospital, tmp_path: Path, contents: Callable[[Path], dict[str, str]]
) -> None:
    site, first = taken
    other = Site(tmp_path)
    shutil.copytree(site.store, other.store)
    again = other.ingest(hospital.reports, hospital.dicom)
    assert (again.accepted, again.duplicate) == (0, len(hospital.truth))
    assert contents(other.store) == contents(site.store)
    assert again.quarantined == first.quarantined


def test_reports_and_images_may_come_in_any_order(
    taken: tuple[Site, Summary], hospital: Hospital, tmp_path: Path
) -> None:
    """Images of half the patients, then of all, then the reports: the same rows as all at once."""
    other = Site(tmp_path)
    folders = sorted(path for path in hospital.dicom.iterdir())
    for folder in folders[len(folders) // 2 :]:
        shutil.copytree(folder, other.dicom / folder.name)
    other.ingest()
    assert not any(row["findings"] for row in other.rows())
    for folder in folders[: len(folders) // 2]:
        shutil.copytree(folder, other.dicom / folder.name)
    other.ingest()
    last = other.ingest(hospital.reports)
    assert last.accepted == 0 and last.reports["written"] == taken[1].reports["written"]

    def plain(site: Site) -> list[dict[str, Any]]:
        rows = sorted(site.rows(), key=lambda row: row["image"])
        return [{k: v for k, v in row.items() if k not in ("shard", "offset")} for row in rows]

    assert plain(other) == plain(taken[0])


def test_a_report_whose_dicom_is_gone_is_not_taken_unscrubbed(site: Site, tmp_path: Path) -> None:
    site.write(AccessionNumber="A1")
    site.ingest()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    reports = tmp_path / "r.csv"
    reports.write_text("accession,text\nA1,FINDINGS: Jane Doe has clear lungs.\n")
    late = site.ingest(reports, elsewhere)
    assert late.quarantined == {"report_header_gone": 1} and late.reports["written"] == 0
    assert site.rows()[0]["findings"] is None
    assert site.ingest(reports).quarantined == {}
    assert "clear lungs" in site.rows()[0]["findings"] and "Doe" not in site.rows()[0]["findings"]


def test_a_corrected_report_takes_the_place_of_the_old(site: Site, tmp_path: Path) -> None:
    site.write(AccessionNumber="A1")
    reports = tmp_path / "r.csv"
    reports.write_text("accession,text\nA1,FINDINGS: Clear lungs.\n")
    site.ingest(reports)
    reports.write_text("accession,text\nA1,FINDINGS: Left effusion.\n")
    assert site.ingest(reports).reports["written"] == 1
    assert site.rows()[0]["findings"] == "Left effusion."
    assert site.ingest(reports).reports["written"] == 0


def test_an_addendum_is_kept_with_the_impression(site: Site, tmp_path: Path) -> None:
    site.write(AccessionNumber="A1")
    reports = tmp_path / "r.csv"
    text = "FINDINGS: Clear.\nIMPRESSION: Normal.\nADDENDUM: There is a nodule."
    with reports.open("w", newline="") as file:
        csv.writer(file).writerows([("accession", "text"), ("A1", text)])
    site.ingest(reports)
    assert site.rows()[0]["impression"] == "Normal. There is a nodule."


def test_one_instance_with_other_pixels_is_refused_and_the_first_kept(site: Site) -> None:
    site.write("a.dcm")
    site.write("b.dcm")  # the same SOPInstanceUID, other pixels
    summary = site.ingest()
    assert (summary.accepted, summary.quarantined) == (1, {"conflicting_duplicate": 1})
    assert site.codes() == {"b.dcm": {"conflicting_duplicate"}}
    assert site.ingest().quarantined == summary.quarantined


def test_one_instance_with_another_header_is_the_same_image(site: Site) -> None:
    pixels = maker.chest(160, 150)
    site.write("a.dcm", pixels=pixels)
    site.write("b.dcm", pixels=pixels, StudyDescription="Chest again")
    summary = site.ingest()
    assert (summary.accepted, summary.duplicate, summary.changed, summary.quarantined) == (1, 1, 1, {})


def test_the_same_picture_of_two_patients_is_refused(site: Site) -> None:
    pixels = maker.chest(160, 150)
    site.write("a.dcm", pixels=pixels)
    site.write("b.dcm", pixels=pixels, SOPInstanceUID="1.2.9", StudyInstanceUID="1.2.8", PatientID="P2")
    site.write("c.dcm", pixels=pixels, SOPInstanceUID="1.2.7", StudyInstanceUID="1.2.6")
    summary = site.ingest()
    assert (summary.accepted, summary.duplicate, summary.quarantined) == (1, 1, {"same_pixels": 1})
    assert site.codes() == {"b.dcm": {"same_pixels"}}


def test_one_study_with_two_patients_leaves_nothing_behind(site: Site) -> None:
    first = site.write("a.dcm", SOPInstanceUID="1.2.1")
    site.write("b.dcm", SOPInstanceUID="1.2.2", PatientID="P2")
    site.write("c.dcm", SOPInstanceUID="1.2.5", StudyInstanceUID="1.2.9", PatientID="P3")
    summary = site.ingest()
    assert (summary.accepted, summary.withdrawn) == (2, 1)
    assert summary.quarantined == {"study_two_patients": 2}
    assert site.codes() == {name: {"study_two_patients"} for name in ("a.dcm", "b.dcm")}
    [row] = site.rows()
    assert row["image"] == P.image("1.2.5")
    shard = np.fromfile(site.store / "images" / "shard-00000.u8", np.uint8)
    assert not shard[: row["offset"]].any() and shard[row["offset"] :].any()  # the picture itself is gone too
    again = site.ingest()
    assert (again.accepted, again.withdrawn, again.quarantined) == (0, 0, summary.quarantined)
    # The archive corrects the first file's patient: now all agree.
    first.write_bytes(maker.write(maker.dataset(maker.chest(160, 152), 12, SOPInstanceUID="1.2.1", PatientID="P2")))
    mended = site.ingest()
    assert (mended.accepted, mended.quarantined) == (2, {}) and site.codes() == {}
    assert {row["patient"] for row in site.rows()} == {P.patient("P2"), P.patient("P3")}


def test_a_dispute_ends_when_the_wrong_file_is_gone(site: Site) -> None:
    site.write("a.dcm", SOPInstanceUID="1.2.1")
    wrong = site.write("b.dcm", SOPInstanceUID="1.2.2", PatientID="P2")
    assert site.ingest().quarantined == {"study_two_patients": 2}
    assert site.ingest().quarantined == {"study_two_patients": 2}
    wrong.unlink()
    assert site.ingest().accepted == 1
    assert [row["patient"] for row in site.rows()] == [P.patient("P1")]


def test_a_study_that_moved_to_another_patient_moves_in_the_store(site: Site) -> None:
    uids = ("1.2.1", "1.2.2")
    for uid in uids:
        site.write(f"{uid}.dcm", SOPInstanceUID=uid)
    site.ingest()
    site.written = 0
    for uid in uids:
        site.write(f"{uid}.dcm", SOPInstanceUID=uid, PatientID="P7")
    site.ingest()
    assert {(row["image"], row["patient"]) for row in site.rows()} == {(P.image(u), P.patient("P7")) for u in uids}
    assert site.codes() == {} and site.ingest().accepted == 0


def test_two_patients_sharing_an_accession_number_get_no_text_by_it(site: Site, tmp_path: Path) -> None:
    site.write(SOPInstanceUID="1.2.1", StudyInstanceUID="1.1", AccessionNumber="A1")
    site.write(SOPInstanceUID="1.2.2", StudyInstanceUID="1.2", AccessionNumber="A1", PatientID="P2")
    reports = tmp_path / "r.csv"
    reports.write_text("study_uid,accession,text\n,A1,FINDINGS: Whose?\n1.2,A1,FINDINGS: Named by its study.\n")
    summary = site.ingest(reports)
    assert summary.quarantined == {"shared_accession": 1, "study_without_report": 1}
    assert {row["study"]: row["findings"] for row in site.rows()} == {
        P.study("1.1"): None,
        P.study("1.2"): "Named by its study.",
    }


def test_a_report_file_in_the_wrong_encoding_costs_its_rows_only(site: Site, tmp_path: Path) -> None:
    site.write(AccessionNumber="A1", SOPInstanceUID="1.2.1", StudyInstanceUID="1.1")
    site.write(AccessionNumber="A2", SOPInstanceUID="1.2.2", StudyInstanceUID="1.2")
    reports = tmp_path / "r.csv"
    reports.write_bytes(b"accession,text\nA1,FINDINGS: \xff\xfe\x80 broken.\nA2,FINDINGS: Clear.\n")
    summary = site.ingest(reports, report_config=build(ReportsConfig, {"encoding": "utf-8"}))
    assert summary.quarantined == {"report_encoding": 1, "study_without_report": 1}
    assert sorted(str(row["findings"]) for row in site.rows()) == ["Clear.", "None"]


def test_a_mended_file_leaves_the_quarantine(site: Site) -> None:
    path = site.write("a.dcm")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert site.ingest().quarantined == {"truncated": 1}
    path.write_bytes(whole)
    assert site.ingest().accepted == 1 and site.codes() == {}


def test_what_is_refused_follows_the_configuration(site: Site) -> None:
    site.write("a.dcm", Modality="CT")
    assert site.ingest().quarantined == {"wrong_modality": 1}
    wider = build(ReadConfig, {"gate": {"modalities": ["CR", "DX", "CT"]}})
    assert site.ingest(reading=wider).accepted == 1 and site.codes() == {}


def test_odd_entries_of_a_folder_are_named_or_left_out(site: Site) -> None:
    site.write("a.dcm")
    (site.dicom / "notes.txt").write_text("not an image")
    (site.dicom / "empty.dcm").write_bytes(b"")
    (site.dicom / ".half.dcm").write_bytes(b"a copy in progress")
    os.symlink("/etc", site.dicom / "link")
    os.mkfifo(site.dicom / "pipe.dcm")
    (site.dicom / "caf\udce9.dcm".encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")).write_bytes(
        b"x"
    )
    summary = site.ingest()
    assert summary.accepted == 1 and sum(summary.quarantined.values()) == 4
    assert set(summary.quarantined) <= {reason.value for reason in ADVICE}
    assert ".half.dcm" not in site.codes() and "link" not in site.codes()


def test_flags_come_with_their_score(site: Site) -> None:
    site.write(pixels=4095 - maker.chest(160, 150))
    site.ingest()
    [row] = site.rows()
    name, _, score = row["flags"].split(",")[0].partition(":")
    assert name == "inverted" and float(score) > 0.1


def test_folders_that_make_no_sense_are_refused(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        site.ingest(dicom=tmp_path / "nowhere")
    site.store = site.dicom / "store"
    with pytest.raises(ConfigError, match="lies among the DICOM files"):
        site.ingest()
    site.store, site.index = tmp_path / "store", tmp_path / "store" / "index"
    with pytest.raises(IndexFileError, match="inside the store"):
        site.ingest()
    with pytest.raises(ConfigError, match="reports"):
        site.index = tmp_path / "index"
        site.ingest(tmp_path / "nowhere.csv")


def test_settings_that_make_no_sense_are_refused() -> None:
    for values, word in (({"workers": -1}, "workers"), ({"reading": {"digest": False}}, "digest")):
        with pytest.raises(ConfigError, match=word):
            build(Settings, {"source": "north", **values})


def test_two_ingests_at_once(site: Site) -> None:
    site.write()
    with (
        StoreWriter(site.store, secret=SECRET, preprocessing={}),
        pytest.raises(StoreWriteError, match="another process"),
    ):
        site.ingest()


def test_withdrawn_images_and_late_texts_survive_a_power_cut(tmp_path: Path) -> None:
    """The last rows of the journal lost with their pixels: what stays is whole, and can be added to."""
    pixels = np.full((40, 40), 7, np.uint8)

    def row(n: int) -> dict[str, Any]:
        key = f"{n:032x}"
        return {"image": key, "patient": key, "study": key, "digest": key, "source": "s"}

    with StoreWriter(tmp_path / "s", secret=SECRET) as writer:
        for n in range(4):
            writer.add(row(n), pixels)
        assert writer.withdraw({f"{1:032x}"}) == 1
        first = writer.set_text(f"{0:032x}", "Early.", None)
        writer.add(row(4), pixels)
    shard = tmp_path / "s" / "images" / "shard-00000.u8"
    with open(shard, "r+b") as file:
        file.truncate(4 * 1600 + 10)
    with StoreWriter(tmp_path / "s", secret=SECRET) as writer:
        assert len(writer) == 3 and writer.text_sum(f"{0:032x}") == first
        writer.add(row(4), pixels)
        writer.add(row(1), pixels)
        writer.finish()
    store = Store.open(tmp_path / "s")
    rows = store.table.to_pylist()
    assert [r["image"][-1] for r in rows] == ["0", "2", "3", "4", "1"] and rows[0]["findings"] == "Early."
    assert all((store.pixels(i) == 7).all() for i in range(5))
    assert not np.fromfile(shard, np.uint8)[1600:3200].any()


def test_the_pairing_of_the_site_is_in_the_store(site: Site) -> None:
    for n, date in enumerate(("20200101", "20200301", "20230101")):
        site.write(SOPInstanceUID=f"1.{n}", StudyInstanceUID=f"2.{n}", StudyDate=date)
    assert site.ingest(pairing=PairingRules(max_gap_days=100)).pairs == 1
    assert site.ingest().pairs == 2
    assert json.loads((site.store / "store.json").read_text())["pairing"]["max_gap_days"] == 1826


def test_every_code_has_its_advice() -> None:
    assert set(ADVICE) == set(Reason)


def test_folders_of_any_depth_in_one_order(tmp_path: Path) -> None:
    deep = tmp_path
    names = []
    for _ in range(300):
        (deep / "b").write_text("")
        names.append(deep / "b")
        deep = deep / "a"
        deep.mkdir()
    assert list(files_below(tmp_path)) == names[::-1]


@pytest.mark.real
def test_every_real_file_is_taken_in_or_refused_by_a_code(dev_data: Path, site: Site) -> None:
    """The whole folder of odd files: each is accepted, there already, or quarantined; no child dies."""
    folder = dev_data / "dicom"
    summary = site.ingest(dicom=folder, workers=2)
    files = sum(1 for _ in files_below(folder))
    print(summary)
    assert summary.accepted + summary.duplicate + sum(summary.quarantined.values()) == files
    assert summary.accepted >= 15 and summary.replaced == 0
    assert not {"unexpected", "crashed", "time_limit", "memory_limit"} & set(summary.quarantined)
    again = site.ingest(dicom=folder)
    assert (again.accepted, again.quarantined) == (0, summary.quarantined)
