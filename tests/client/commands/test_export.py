"""``fedcxr-site export``: what is told, and that it tells nothing of the files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pydicom
import pytest

from client.ingest.phantom.hospital import write_hospital
from client.ingest.phantom.style import style


@pytest.fixture(scope="session")
def hospital(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("export") / "hospital"
    write_hospital(out, style("north"), 2, 1, 160, workers=2)
    return out


@pytest.fixture
def pacs(hospital, tmp_path) -> Path:
    """The hospital's files and some that are none, all under names that identify somebody."""
    folder = tmp_path / "DOE^SENTINEL"
    shutil.copytree(hospital / "dicom", folder)
    (folder / "MRN-SENTINEL.txt").write_text("not DICOM")
    os.mkfifo(folder / "SENTINEL-pipe")
    (folder / "SENTINEL-link").symlink_to(hospital)
    return folder


def test_files_are_written_and_told_by_number(run, pacs, site, tmp_path, one_object):
    count = len(list(pacs.rglob("*.dcm")))
    arguments = ("export", "--dicom", pacs, "--site", site("workers: 2"), "--out", tmp_path / "out", "--json")
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    told = one_object(done.stdout)
    assert told["exported"] + told["duplicate"] == count and told["quarantined"] == {"not_dicom": 2}
    assert told["edition"] == "2026c" and told["seconds"] > 0 and len(told["warnings"]) == 1
    assert "SENTINEL" not in done.stdout + done.stderr
    written = sorted((tmp_path / "out").rglob("*.dcm"))
    assert len(written) == told["exported"] and all(pydicom.dcmread(p).PatientIdentityRemoved == "YES" for p in written)
    again = one_object(run(*arguments).stdout)
    assert (again["exported"], again["duplicate"]) == (0, count)


def test_the_same_in_words(run, pacs, site, tmp_path):
    done = run("export", "--dicom", pacs, "--site", site(), "--out", tmp_path / "out", "--workers", 2)
    assert done.exit_code == 0 and "exported, " in done.stdout and "2 not_dicom: " in done.stdout
    assert "warning: " in done.stderr and "ingest first" in done.stderr
    assert "SENTINEL" not in done.stdout + done.stderr
    assert done.stdout.startswith(f"{len(list((tmp_path / 'out').rglob('*.dcm')))} exported")


def test_an_old_table_is_told_and_a_very_old_one_refused(run, pacs, site, tmp_path, one_object):
    arguments = ("export", "--dicom", pacs, "--out", tmp_path / "out", "--json", "--site")
    site("export: {table: {warn_days: 1, max_days: 100000}}")
    warned = one_object(run(*arguments, tmp_path / "site.yaml").stdout)["warnings"]
    assert any("days old, refused from" in text for text in warned)
    site("export: {table: {warn_days: 1, max_days: 1}}")
    done = run(*arguments, tmp_path / "site.yaml")
    assert done.exit_code == 2 and "max_days" in one_object(done.stdout)["error"]


def test_a_study_in_dispute_stays(run, hospital, site, tmp_path, one_object):
    """With the private index there is no warning, and the study that two patients claim is refused."""
    from client.ingest.keys import site_secret
    from client.ingest.pseudonym import Pseudonyms
    from client.ingest.siteindex import SiteIndex
    from client.site_config import load_site

    cfg = load_site(site())
    own = Pseudonyms(site_secret(cfg.secret))
    disputed = sorted((hospital / "dicom").rglob("*.dcm"))[0]
    study = own.study(pydicom.dcmread(disputed).StudyInstanceUID)
    with SiteIndex(cfg.index, cfg.store) as index:
        for patient in ("one", "another"):
            index.add_study(patient, study)
    arguments = ("--dicom", hospital / "dicom", "--site", tmp_path / "site.yaml", "--out", tmp_path / "out", "--json")
    told = one_object(run("export", *arguments).stdout)
    assert told["warnings"] == [] and told["quarantined"]["study_two_patients"] >= 1 and told["exported"] >= 1
    with SiteIndex(cfg.index, cfg.store):
        busy = run("export", *arguments)
    assert busy.exit_code == 2 and "another ingest" in one_object(busy.stdout)["error"]


@pytest.mark.parametrize(
    ("out", "word"),
    [("pacs/below", "inside --dicom"), ("store/below", "inside the store"), ("gone/below", "make it first")],
)
def test_folders_that_would_mix(run, site, tmp_path, one_object, out, word):
    (tmp_path / "pacs").mkdir()
    (tmp_path / "pacs" / "file").touch()
    done = run("export", "--dicom", tmp_path / "pacs", "--site", site(), "--out", tmp_path / out, "--json")
    assert (
        done.exit_code == 2 and word in one_object(done.stdout)["error"] and not (tmp_path / "keys" / "secret").exists()
    )


def test_nothing_to_export(run, site, tmp_path, one_object):
    (tmp_path / "pacs").mkdir()
    for folder, word in (("pacs", "no file"), ("gone", "no such folder")):
        done = run("export", "--dicom", tmp_path / folder, "--site", site(), "--out", tmp_path / "out", "--json")
        assert done.exit_code == 2 and word in one_object(done.stdout)["error"]


def test_a_full_disk_is_a_failure_not_a_refusal(run, hospital, site, tmp_path, monkeypatch, one_object):
    import errno

    from client.ingest import export
    from client.ingest.keys import site_secret
    from client.site_config import load_site

    site_secret(load_site(site()).secret)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export.os, "fsync", full)
    done = run("export", "--dicom", hospital / "dicom", "--site", site(), "--out", tmp_path / "out", "--json")
    assert done.exit_code == 1 and "no room left" in one_object(done.stdout)["error"]
    assert list((tmp_path / "out").rglob("*.dcm*")) == []


def test_a_broken_site_yaml(run, hospital, site, tmp_path, one_object):
    done = run("export", "--dicom", hospital / "dicom", "--site", site("a: 1"), "--out", tmp_path / "out", "--json")
    assert done.exit_code == 2 and "unknown key" in one_object(done.stdout)["error"]


def test_in_a_process_of_its_own(process, pacs, site, tmp_path, one_object):
    done = process("export", "--dicom", pacs, "--site", site("workers: 1"), "--out", tmp_path / "out", "--json")
    assert done.returncode == 0 and done.stderr == "" and one_object(done.stdout)["exported"] > 0
