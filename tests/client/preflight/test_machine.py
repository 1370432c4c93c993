"""Disk, memory, device, decoders, sandbox."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import psutil
import pytest

from client.ingest.limits import Limits
from client.ingest.reading import ReadConfig
from client.policy import Policy
from client.preflight import machine
from client.preflight.machine import (
    GIB,
    MIB,
    available_memory,
    check_decoders,
    check_device,
    check_disk,
    check_memory,
    check_sandbox,
)
from client.preflight.outcome import Check, Level, size

READING = ReadConfig()


def only(found: list[Check]) -> Check:
    assert len(found) == 1, found
    return found[0]


def test_the_decoders_of_this_environment():
    check = only(list(check_decoders()))
    assert check.level is Level.OK and "pydicom 3" in check.text and "python-gdcm" in check.text


@pytest.mark.parametrize(
    "failure", [ImportError("libgdcm.so"), OSError("no such library"), RuntimeError("built wrongly")]
)
def test_a_decoder_that_cannot_be_loaded_is_named(failure, monkeypatch):
    whole = machine.importlib.import_module

    def broken(name, *more):
        if name in ("gdcm", "rle"):
            raise failure
        return whole(name, *more)

    monkeypatch.setattr(machine.importlib, "import_module", broken)
    found = list(check_decoders())
    assert [check.level for check in found] == [Level.ERROR] * 2
    assert "python-gdcm" in found[0].text and "pylibjpeg-rle" in found[1].text


def test_a_transfer_syntax_without_decoder_is_named(monkeypatch):
    from client.ingest import codecs

    monkeypatch.setattr(codecs, "decoder_for", lambda syntax: type("D", (), {"is_available": False}))
    assert "1.2.840.10008.1.2.4.50" in next(check_decoders()).text


def disk(monkeypatch, free: float) -> None:
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage(10**15, 10**15 - int(free), int(free)))


def files(folder: Path, count: int) -> Path:
    (folder / "pacs").mkdir()
    for i in range(count):
        (folder / "pacs" / str(i)).touch()
    return folder / "pacs"


def test_the_disk_is_held_against_the_files(tmp_path, monkeypatch):
    pacs, policy = files(tmp_path, 2000), Policy(max_reply_mb=512)
    store, state = tmp_path / "store", tmp_path / "state"
    images = 2000 * 512 * 512 * 1.25 * 1.3  # what 2000 images of short side 512 take, written out
    needed = images + 2 * 512 * MIB + GIB
    for free, level in ((needed + MIB, Level.OK), (needed - MIB, Level.ERROR), (0.9 * GIB, Level.ERROR)):
        disk(monkeypatch, free)
        check = only(list(check_disk(store, state, READING, policy, pacs)))
        assert check.level is level, free
        assert "2000 files take about 812.5 MiB" in check.text and "1.0 GiB" in check.text
    disk(monkeypatch, needed - MIB)
    store.mkdir()  # what of the files is in the store already is not known
    assert only(list(check_disk(store, state, READING, policy, pacs))).level is Level.WARNING


def test_the_estimate_is_of_the_right_size(tmp_path):
    """Against a store that is really written, at a usual radiograph's shape."""
    from client.ingest.keys import keyed
    from client.ingest.writer import StoreWriter

    key = bytes(32)
    with StoreWriter(tmp_path / "store", secret=key) as writer:
        for i in range(20):
            row = {name: keyed(key, name, str(i)) for name in ("image", "patient", "study", "digest")}
            noise = np.random.default_rng(i).integers(0, 256, (622, 512), dtype=np.uint8)
            writer.add({**row, "source": "here", "view": "PA"}, noise)
        writer.finish()
    held = sum(path.stat().st_size for path in (tmp_path / "store").rglob("*") if path.is_file()) / 20
    estimate = 512**2 * machine.ASPECT * machine.RESIZED
    assert held < estimate < 1.5 * held


def test_without_files_a_number_is_guessed_and_said_to_be(tmp_path, monkeypatch):
    disk(monkeypatch, 2 * GIB)
    check = only(list(check_disk(tmp_path / "store", tmp_path / "state", READING, Policy(), None)))
    assert check.level is Level.WARNING and "guess" in check.text


def test_files_that_are_not_there(tmp_path):
    assert next(check_disk(tmp_path / "s", tmp_path / "t", READING, Policy(), tmp_path / "gone")).level is Level.ERROR


@pytest.mark.parametrize(
    ("free", "workers", "level", "word"),
    [
        (64 * GIB, 4, Level.OK, "at their cap 9.0 GiB"),
        (4 * GIB, 4, Level.WARNING, "set workers or reading.limits lower"),
        (2 * GIB, 4, Level.ERROR, "set workers: 2"),
        (GIB, 4, Level.ERROR, "free memory"),
    ],
)
def test_memory_is_held_against_the_workers(free, workers, level, word, monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda: free)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 8)
    check = only(list(check_memory(workers, READING)))
    assert check.level is level and word in check.text


def test_workers_are_one_a_core_unless_said(monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda: 64 * GIB)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 3)
    assert "3 reading processes" in only(list(check_memory(0, READING))).text
    assert [check.level for check in check_memory(4, READING)] == [Level.OK, Level.WARNING]


def group(folder: Path, limit: str, used: int, cache: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cache}\n")


def test_a_containers_limit_counts(tmp_path):
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    machine_free = psutil.virtual_memory().available
    assert available_memory(proc, groups) == pytest.approx(machine_free, rel=0.2)  # no control groups at all
    (proc / "self" / "cgroup").write_text("0::/pod/box\n")
    group(groups / "pod" / "box", "max", 5)
    assert available_memory(proc, groups) == pytest.approx(machine_free, rel=0.2)
    group(groups / "pod", "1000000", 900_000, 50_000)
    assert available_memory(proc, groups) == 150_000
    group(groups / "pod" / "box", "500000", 600_000)
    assert available_memory(proc, groups) == 0
    (proc / "self" / "cgroup").write_text("0::/\n")
    group(groups, "3000", 1000)
    assert available_memory(proc, groups) == 2000


def test_a_path_that_leads_out_of_the_groups_ends(tmp_path):
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text("0::/../../x\n")
    assert available_memory(tmp_path, tmp_path / "cgroup") > 0


@pytest.mark.parametrize(
    ("device", "there", "level"),
    [
        ("auto", False, Level.OK),
        ("cpu", False, Level.OK),
        ("cuda", False, Level.ERROR),
        ("cuda", True, Level.OK),
        ("cpu", True, Level.OK),
    ],
)
def test_the_device(device, there, level, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A Device")
    check = only(list(check_device(device)))
    assert check.level is level
    assert ("A Device" in check.text) is there


def test_a_reading_process_starts():
    check = only(list(check_sandbox(READING)))
    assert check.level in (Level.OK, Level.WARNING) and "a reading process starts" in check.text


def test_a_kernel_that_leaves_the_network_is_told(monkeypatch):
    from client.ingest.sandbox import Sandbox

    whole = Sandbox.read

    def read(self, item):
        answer = whole(self, item)
        self.network_cut = False
        return answer

    monkeypatch.setattr(Sandbox, "read", read)
    check = only(list(check_sandbox(READING)))
    assert check.level is Level.WARNING and "user namespaces" in check.text


def test_a_reading_process_that_cannot_start(monkeypatch):
    from client.ingest import sandbox

    monkeypatch.setattr(sandbox.sys, "executable", "/bin/false")
    check = only(list(check_sandbox(READING)))
    assert check.level is Level.ERROR and "did not start" in check.text


def test_a_reading_process_without_room(monkeypatch):
    tight = ReadConfig(limits=Limits(memory_bytes=512 * MIB))
    assert only(list(check_sandbox(tight))).level in (Level.OK, Level.WARNING)  # the least that may be configured


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "2 KiB"), (1536 * MIB, "1.5 GiB"), (2**41, "2.0 TiB")],
)
def test_sizes_in_words(count, text):
    assert size(count) == text


def test_looking_loads_nothing_heavy_before_it_must():
    """The module is imported by every check; torch and the store only when their check runs."""
    import subprocess
    import sys

    code = "import sys, client.preflight.places, client.commands.check; print('torch' in sys.modules, 'pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.stdout.split() == ["False", "False"], done.stderr
