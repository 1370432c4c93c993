"""Kills, full disks, read-only stores, folders that grow: through the command line, as a site would meet them."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client.ingest.intake.conftest import Hospital, Site

ROOT = Path(__file__).resolve().parents[4]
COMMAND = [sys.executable, "-m", "client.cli", "ingest"]
YAML = "name: north\nstore: store\nsecret: site.secret\nstate: state\nworkers: 2\n"

# A moment is counted in what the ingest does (files opened, renamed, removed, databases), not in seconds, so that
# a kill meets an ingest at work on a slow machine and on a fast one; a chance delay falls between two such acts.
_UNTIL_KILLED = """
import os, random, signal, sys, threading
from pathlib import Path
from client.ingest.intake import Intake, Settings
store, dicom, reports = map(Path, sys.argv[1:4])
moment, seed = int(sys.argv[4]), int(sys.argv[5])
begun = False
acts = 0
def act(*_):
    global acts
    acts += begun
    if begun and acts == moment + 1:
        delay = random.Random(seed).uniform(0, 0.02)
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
def tell(*_):
    global begun
    begun = True
sys.addaudithook(act)
settings = Settings(source="north", workers=2)
with Intake(dicom, store, store.with_name("private.index"), settings, bytes(range(32)), reports) as intake:
    intake.run(tell)
print(acts, flush=True)
"""


def killed_at(site: Site, hospital: Hospital, moment: int = -2, seed: int = 0) -> int | None:
    """Run an ingest that is killed around its act number ``moment`` after the first file: how many acts, if it ended."""
    command = [sys.executable, "-c", _UNTIL_KILLED, site.store, hospital.dicom, hospital.reports, moment, seed]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return int(done.stdout) if done.stdout else None


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.timeout(1500)
def test_killed_at_any_moment_the_store_ends_the_same(
    hospital: Hospital, tmp_path: Path, contents: Callable[[Path], dict[str, str]], kills: int
) -> None:
    (tmp_path / "whole").mkdir()
    whole = Site(tmp_path / "whole")
    acts = killed_at(whole, hospital)
    assert acts is not None and acts > 100
    expected = contents(whole.store)
    chance = random.Random(kills)
    unfinished = 0
    for number in range(kills):
        (tmp_path / str(number)).mkdir()
        site = Site(tmp_path / str(number))
        unfinished += killed_at(site, hospital, chance.randrange(acts), seed=number) is None
        site.ingest(hospital.reports, hospital.dicom)
        assert contents(site.store) == expected, f"kill {number}"
        shutil.rmtree(site.path)
    print(f"{kills} kills, {unfinished} before the end; every store ended the same")
    assert unfinished > kills / 3  # the kills did meet ingests at work


def site_folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    (path / "site.yaml").write_text(YAML)
    return path / "site.yaml"


def ingest(yaml: Path, dicom: Path, *more: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """The command in a process of its own; ``before`` are shell lines in a mount namespace of its own."""
    command = [*COMMAND, "--dicom", str(dicom), "--site", str(yaml), *more]
    if before:
        shell = f"set -e; {before}; exec {' '.join(command)}"
        command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", shell]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)


def test_a_full_disk_is_said_and_loses_nothing(hospital: Hospital, tmp_path: Path) -> None:
    """A store on 1 MiB, then on more: the second run goes on from where the first stopped."""
    yaml = site_folder(tmp_path / "site")
    (tmp_path / "site" / "store").mkdir()
    small = f"mount -t tmpfs -o size=1m none {tmp_path}/site/store"
    again = f"{' '.join(COMMAND)} --dicom {hospital.dicom} --site {yaml} --json > {tmp_path}/first || true"
    keep = f"{small}; {again}; mount -o remount,size=64m {tmp_path}/site/store"
    done = ingest(yaml, hospital.dicom, "--json", before=keep)
    first = json.loads((tmp_path / "first").read_text())
    assert "no room left" in first["error"] and "goes on from here" in first["error"]
    second = json.loads(done.stdout)
    films = len([line for line in hospital.truth if line["repeats"] is None])
    assert done.returncode == 0 and 0 < second["accepted"] < films
    assert second["accepted"] + second["duplicate"] == len(hospital.truth)


def test_a_full_disk_under_the_private_index_is_said(hospital: Hospital, tmp_path: Path) -> None:
    yaml = site_folder(tmp_path / "site")
    (tmp_path / "site" / "keys").mkdir()
    yaml.write_text(YAML.replace("site.secret", "keys/site.secret"))
    done = ingest(yaml, hospital.dicom, "--json", before=f"mount -t tmpfs -o size=24k none {tmp_path}/site/keys")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "site.secret" in json.loads(done.stdout)["error"]


def test_a_read_only_store_is_said(hospital: Hospital, tmp_path: Path) -> None:
    yaml = site_folder(tmp_path / "site")
    store = tmp_path / "site" / "store"
    store.mkdir()
    mount = f"mount --bind {store} {store}; mount -o remount,bind,ro {store}"
    done = ingest(yaml, hospital.dicom, "--json", before=mount)
    assert done.returncode == 2 and "not writable" in json.loads(done.stdout)["error"]
    assert list(store.iterdir()) == []


def test_two_ingests_at_once_one_waits_or_refuses(hospital: Hospital, tmp_path: Path) -> None:
    yaml = site_folder(tmp_path / "site")
    command = [*COMMAND, "--dicom", str(hospital.dicom), "--site", str(yaml), "--json", "--wait", "60"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(2)]
    said = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    films = len([line for line in hospital.truth if line["repeats"] is None])
    assert sorted(s["accepted"] for s in said) == [0, films]
    assert [process.returncode for process in both] == [0, 0]


def test_the_summary_is_one_object_and_names_nothing(hospital: Hospital, tmp_path: Path) -> None:
    yaml = site_folder(tmp_path / "site")
    done = ingest(yaml, hospital.dicom, "--reports", str(hospital.reports), "--json")
    summary = json.loads(done.stdout)
    assert done.returncode == 0 and done.stderr == ""
    assert {"accepted", "duplicate", "quarantined", "pairs", "seconds"} <= set(summary)
    plain = ingest(yaml, hospital.dicom)
    assert plain.returncode == 0 and "0 images taken in" in plain.stdout
    missing = ingest(yaml, tmp_path / "nowhere")
    assert missing.returncode == 2 and "no such folder" in missing.stderr
    assert "Example" in subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, cwd=ROOT).stdout


def test_the_quarantine_can_be_read_by_name(hospital: Hospital, tmp_path: Path) -> None:
    yaml = site_folder(tmp_path / "site")
    dicom = tmp_path / "dicom"
    dicom.mkdir()
    (dicom / "letter.txt").write_text("not an image")
    reports = tmp_path / "reports.csv"
    reports.write_text("accession,text\nA77,Whose?\n")
    ingest(yaml, dicom, "--reports", str(reports))
    command = [sys.executable, "-m", "client.cli", "quarantine", "--dicom", dicom, "--site", yaml, "--json"]
    said = json.loads(subprocess.run(command, capture_output=True, cwd=ROOT).stdout)
    assert said == {"named": {"not_dicom": [str(dicom / "letter.txt")]}, "unnamed": {"report_unmatched": 1}}
    command = [*command[:-1], "--reports", reports]
    plain = subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout
    assert "reports.csv, A77" in plain and "letter.txt" in plain


def test_a_folder_that_grows_is_watched(hospital: Hospital, tmp_path: Path) -> None:
    yaml = site_folder(tmp_path / "site")
    dicom = tmp_path / "dicom"
    dicom.mkdir()
    files = [hospital.path / line["file"] for line in hospital.truth if line["repeats"] is None][:3]
    command = [*COMMAND, "--dicom", dicom, "--site", yaml, "--watch", "--every", "0.5", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        for number, file in enumerate(files):
            data = file.read_bytes()
            with open(dicom / f"{number}.dcm", "wb") as growing:  # slowly: never met half written
                growing.write(data[: len(data) // 2])
                growing.flush()
                time.sleep(0.3)
                growing.write(data[len(data) // 2 :])
            wait_for(lambda n=number: images(tmp_path / "site" / "store") == n + 1)
    finally:
        process.send_signal(signal.SIGTERM)
    summary = json.loads(process.communicate(timeout=60)[0])
    assert process.returncode == 0
    assert (summary["accepted"], summary["quarantined"]) == (3, {})


def images(store: Path) -> int:
    try:
        return json.loads((store / "store.json").read_text())["counts"]["images"]
    except (OSError, ValueError):
        return 0


def wait_for(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.1)


def test_children_do_not_outlive_a_killed_parent(hospital: Hospital, tmp_path: Path) -> None:
    site = Site(tmp_path)
    before = children()
    assert killed_at(site, hospital, 10) is None
    wait_for(lambda: children() <= before)


def children() -> set[int]:
    """Reading children of anybody."""
    found = set()
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and b"client.ingest.child" in Path(f"/proc/{entry}/cmdline").read_bytes():
                found.add(int(entry))
        except OSError:
            continue
    return found
