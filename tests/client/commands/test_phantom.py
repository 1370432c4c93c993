"""``fedcxr-site phantom``: a hospital on disk, and the way on from it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from client.site_config import load_site

SMALL = ("--patients", 1, "--size", 96, "--workers", 2)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(("style", "reports"), [("north", "reports.csv"), ("east", "reports")])
def test_what_it_says_is_there(run, tmp_path, one_object, style, reports):
    done = run("phantom", *SMALL, "--site-style", style, "--out", tmp_path / "h", "--json")
    assert done.exit_code == 0, done.output
    told = one_object(done.stdout)
    assert told["patients"] == 1 and told["reports"] == str(tmp_path / "h" / reports)
    assert len(list(Path(told["dicom"]).rglob("*.dcm"))) == told["files"]
    assert len(Path(told["truth"]).read_text().splitlines()) == told["files"]
    assert Path(told["reports"]).exists() and load_site(Path(told["site"])).name == style


def test_the_next_command_can_be_pasted(run, tmp_path):
    out = tmp_path / "a place"
    done = run("phantom", *SMALL, "--out", out)
    assert done.exit_code == 0, done.output
    words = shlex.split(done.stdout.splitlines()[-1])
    assert words[:2] == ["fedcxr-site", "ingest"]
    given = dict(zip(words[2::2], words[3::2], strict=True))
    assert set(given) == {"--dicom", "--reports", "--site"}
    assert all(Path(place).exists() for place in given.values())


def test_the_seed_decides_every_byte(run, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert run("phantom", *SMALL, "--seed", seed, "--out", tmp_path / name).exit_code == 0
    one, same, other = (files(tmp_path / name) for name in "abc")
    assert one == same != other


def test_an_old_hospital_is_not_written_over(run, tmp_path, one_object):
    (tmp_path / "dicom").mkdir()
    done = run("phantom", *SMALL, "--out", tmp_path, "--json")
    assert done.exit_code == 2 and "already" in one_object(done.stdout)["error"]


@pytest.mark.parametrize(
    "wrong", [("--site-style", "nowhere"), ("--patients", 0), ("--size", 10), ("--out", "/proc/here/there")]
)
def test_what_cannot_be_done(run, tmp_path, wrong):
    done = run("phantom", *SMALL, "--out", tmp_path / "h", *wrong)
    assert done.exit_code == 2 and not (tmp_path / "h").exists()


def test_a_worker_that_fails_is_a_failure(run, tmp_path, monkeypatch, one_object):
    from client.ingest.phantom import hospital

    def broken(*_):
        raise RuntimeError("patient 1 of 'north' was not written (crashed)")

    monkeypatch.setattr(hospital, "write_hospital", broken)
    done = run("phantom", "--out", tmp_path / "h", "--json")
    assert done.exit_code == 1 and "crashed" in one_object(done.stdout)["error"]


def test_in_a_process_of_its_own(process, tmp_path):
    done = process("phantom", *SMALL, "--out", tmp_path / "h", "--json")
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout)["patients"] == 1
