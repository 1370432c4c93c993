"""The child process: limits hold, breaches have codes, the next file is read as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from pydicom import uid

from client.ingest.codes import Reason
from client.ingest.reading import ReadConfig, Reading, Refused, read
from client.ingest.sandbox import Sandbox, SandboxError, _Deadline
from client.ingest.wire import LENGTHS, MAGIC, MOST_JSON, WireError, from_wire, lengths, to_wire
from models.config import build
from tests.client.ingest.dicom.maker import chest, dataset, write
from tests.faults.hostile_dicom import compressed, element, fragments, good, insert, put

ROOT = Path(__file__).resolve().parents[4]


def config(**limits: float) -> ReadConfig:
    """Limits under which :func:`slow_file` is slow and not refused at once."""
    return build(ReadConfig, {"limits": {"elements": 10**9, **limits}})


@pytest.fixture(scope="module")
def slow_file() -> bytes:
    """Four million elements: a walk of seconds."""
    return insert(good(), element(0x00291010, b"US", b"\0\0") * 4_000_000)


def test_path_bytes_and_answer(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "a b'$(x).dcm"
    path.write_bytes(good())
    from_path, from_bytes = sandbox.read(path), sandbox.read(good())
    assert isinstance(from_path, Reading) and isinstance(from_bytes, Reading)
    np.testing.assert_array_equal(from_path.pixels, from_bytes.pixels)
    assert from_path.pixels.dtype == np.uint8 and min(from_path.pixels.shape) == 512
    assert from_path.header.patient_name == "Doe^Jane" and from_path.header.study_date == "20200131"
    assert from_path.applied["photometric"] == "MONOCHROME2"
    assert "Doe" not in repr(from_path)  # what a traceback or a log would show


def test_same_as_in_process(sandbox: Sandbox) -> None:
    inside, outside = sandbox.read(good()), read(good(), ReadConfig())
    assert isinstance(inside, Reading) and isinstance(outside, Reading)
    np.testing.assert_array_equal(inside.pixels, outside.pixels)
    assert (inside.header, inside.applied, inside.scores) == (outside.header, outside.applied, outside.scores)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, Reason.MISSING_FILE),
        (lambda path: path.mkdir(), Reason.NOT_DICOM),
        (lambda path: os.mkfifo(path), Reason.NOT_DICOM),
        (lambda path: path.symlink_to("/dev/zero"), Reason.NOT_DICOM),
        (lambda path: path.symlink_to(path), Reason.UNREADABLE_IMAGE),
        (lambda path: socket.socket(socket.AF_UNIX).bind(str(path)), Reason.UNREADABLE_IMAGE),
    ],
)
def test_things_that_are_no_files(make, reason: Reason, sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "item"
    make(path)
    result = sandbox.read(path)
    assert isinstance(result, Refused) and result.reason is reason


def test_file_bytes_are_capped_before_reading(tmp_path: Path) -> None:
    sparse = tmp_path / "huge"
    with sparse.open("wb") as file:
        file.truncate(1 << 40)
    with Sandbox() as sandbox:
        result = sandbox.read(sparse)
        assert sandbox.pid is None  # no child was even started for it
    assert isinstance(result, Refused) and result.reason is Reason.TOO_LARGE


def test_wall_limit(slow_file: bytes) -> None:
    with Sandbox(config(wall_seconds=0.1)) as sandbox:
        pid = _start(sandbox)
        start = time.perf_counter()
        _assert_breach(sandbox, slow_file, Reason.TIME_LIMIT, "wall")
        assert time.perf_counter() - start > 0.9  # it was at work, so it got its ten times
        assert sandbox.pid != pid and not psutil.pid_exists(pid)
        assert isinstance(_patient(sandbox, good()), Reading)


def test_processor_limit(slow_file: bytes) -> None:
    """The kernel ends a child that computes too long, also where the wall clock would allow it."""
    with Sandbox(config(cpu_seconds=1, wall_seconds=120)) as sandbox:
        _assert_breach(sandbox, slow_file, Reason.TIME_LIMIT, "processor")
        assert isinstance(sandbox.read(good()), Reading)


def test_memory_limit() -> None:
    large = write(dataset(np.zeros((10_000, 10_000), np.uint16)))
    with Sandbox(config(memory_bytes=512 << 20, pixels=10**9)) as sandbox:
        _assert_breach(sandbox, large, Reason.MEMORY_LIMIT, "")
        assert isinstance(sandbox.read(good()), Reading)


@pytest.fixture
def process() -> Iterator[Callable[[str], int]]:
    """Starts a Python process that runs some code; gives its id once it is running. Ended come what may."""
    started: list[subprocess.Popen[bytes]] = []

    def start(code: str) -> int:
        command = [sys.executable, "-c", f"print(1, flush=True)\n{code}"]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        assert started[-1].stdout is not None and started[-1].stdout.readline()
        return started[-1].pid

    yield start
    for one in started:
        one.kill()
        one.communicate()


def test_a_sleeping_child_gets_the_wall_time_and_no_more(process: Callable[[str], int]) -> None:
    deadline = _Deadline(0.2, process("import time; time.sleep(60)"))
    assert 0 < deadline.left() < 0.21
    time.sleep(0.3)
    with pytest.raises(TimeoutError):
        deadline.left()


def test_a_busy_machine_is_not_held_against_a_file(process: Callable[[str], int]) -> None:
    """A child that computes gets up to ten times the wall time."""
    deadline = _Deadline(0.5, process("while True: pass"))
    time.sleep(0.6)
    assert 0 < deadline.left() < 0.51
    time.sleep(4.5)
    with pytest.raises(TimeoutError):
        deadline.left()


def _assert_breach(sandbox: Sandbox, data: bytes, reason: Reason, note: str) -> None:
    result = sandbox.read(data)
    assert isinstance(result, Refused)
    assert (result.reason, result.note, sandbox.replaced) == (reason, note, 1)


def _start(sandbox: Sandbox) -> int:
    """Start the child with a file that takes no time; returns its process id."""
    sandbox.read(b"no DICOM")
    assert sandbox.pid is not None
    return sandbox.pid


def _patient(sandbox: Sandbox, data: bytes) -> Reading | Refused:
    """Read with a few tries: the point is that it works again, not how fast a busy machine is."""
    for _ in range(5):
        result = sandbox.read(data)
        if not (isinstance(result, Refused) and result.reason is Reason.TIME_LIMIT):
            break
    return result


@pytest.mark.parametrize(("sent", "reason"), [(signal.SIGKILL, Reason.CRASHED), (signal.SIGSEGV, Reason.CRASHED)])
def test_child_that_dies_on_a_file(sent: signal.Signals, reason: Reason, slow_file: bytes) -> None:
    with Sandbox(config()) as sandbox:
        pid = _start(sandbox)
        timer = threading.Timer(0.3, os.kill, (pid, sent))
        timer.start()
        result = sandbox.read(slow_file)
        timer.join()
        assert isinstance(result, Refused)
        assert (result.reason, result.note) == (reason, sent.name)
        assert isinstance(sandbox.read(good()), Reading)


def test_child_that_hangs_is_killed() -> None:
    with Sandbox(config(wall_seconds=3)) as sandbox:
        pid = _start(sandbox)
        os.kill(pid, signal.SIGSTOP)
        start = time.perf_counter()
        result = sandbox.read(good())
        assert time.perf_counter() - start < 20  # and not the ten times of a child at work, nor for ever
        assert isinstance(result, Refused) and result.reason is Reason.TIME_LIMIT
        assert not psutil.pid_exists(pid)


def test_child_that_died_between_files_costs_no_file() -> None:
    with Sandbox() as sandbox:
        pid = _start(sandbox)
        os.kill(pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(pid)], timeout=5) if psutil.pid_exists(pid) else None
        assert isinstance(sandbox.read(good()), Reading)


def test_child_is_replaced_after_its_share_of_files() -> None:
    with Sandbox(config(files_per_child=2)) as sandbox:
        pids = []
        for _ in range(3):
            assert isinstance(sandbox.read(good()), Reading)
            pids.append(sandbox.pid)
        assert pids[0] != pids[1] and sandbox.replaced == 0


def test_memory_is_flat_over_many_files(sandbox: Sandbox) -> None:
    data = write(dataset(chest(700, 600)))
    for _ in range(20):
        sandbox.read(data)
    before = psutil.Process(sandbox.pid).memory_info().rss
    for _ in range(60):
        sandbox.read(data)
    assert psutil.Process(sandbox.pid).memory_info().rss - before < 8 << 20


def test_child_has_given_up_its_rights(sandbox: Sandbox) -> None:
    sandbox.read(b"")
    limits = Path(f"/proc/{sandbox.pid}/limits").read_text()
    for name in ("Max core file size", "Max file size"):
        line = next(line for line in limits.splitlines() if line.startswith(name))
        assert line.removeprefix(name).split()[:2] == ["0", "0"]
    environment = Path(f"/proc/{sandbox.pid}/environ").read_bytes().decode()
    assert "FEDCXR_TEST_SECRET" not in environment
    status = Path(f"/proc/{sandbox.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    for descriptor in (0, 1, 2):
        assert os.readlink(f"/proc/{sandbox.pid}/fd/{descriptor}") == "/dev/null"


@pytest.fixture(autouse=True, scope="module")
def _secret_in_the_environment() -> None:
    os.environ["FEDCXR_TEST_SECRET"] = "s3cret"  # before any child starts


def test_child_goes_when_the_parent_is_killed() -> None:
    script = (
        "import time; from client.ingest.sandbox import Sandbox; s = Sandbox(); s.read(b'');"
        "print(s.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert psutil.pid_exists(child)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while psutil.pid_exists(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(child)


def test_a_child_that_cannot_start_is_no_files_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Sandbox() as sandbox, pytest.raises(SandboxError, match="did not start"):
        sandbox.read(good())


def test_no_message_of_a_library_comes_out(tmp_path: Path) -> None:
    """Sentinels in values that make pydicom warn and decoders complain, read in a fresh process."""
    sentinel = "SENTINEL77"
    noisy = [
        put(good(), "StudyDate", b"DA" + sentinel.encode()),
        put(good(), "PatientID", b"LO" + sentinel.encode() * 9),
        put(good(), "SOPInstanceUID", b"UI../" + sentinel.encode() + b" "),
        put(good(), "SpecificCharacterSet", b"CS" + sentinel.encode()),
        compressed(uid.JPEGBaseline8Bit, fragments(b"\xff\xd8" + sentinel.encode() * 50), bits=8),
        compressed(uid.JPEG2000Lossless, fragments(b"\xff\x4f\xff\x51" + sentinel.encode() * 50)),
    ]
    for number, data in enumerate(noisy):
        (tmp_path / f"{number}.dcm").write_bytes(data)
    script = (
        "import logging, sys, pathlib; logging.basicConfig(level=0)\n"
        "from client.ingest.sandbox import Sandbox\n"
        "with Sandbox() as s:\n"
        "    for p in sorted(pathlib.Path(sys.argv[1]).iterdir()): print(repr(s.read(p)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, cwd=ROOT, text=True, check=True
    )
    assert done.stdout.count("\n") >= len(noisy)
    assert sentinel not in done.stdout + done.stderr


def test_wire_round_trip() -> None:
    for result in (read(good(), ReadConfig()), read(b"", ReadConfig())):
        text, pixels = to_wire(result)
        sizes = lengths(text[: LENGTHS.size])
        assert sizes == (len(text) - LENGTHS.size, len(pixels))
        back = from_wire(text[LENGTHS.size :], np.frombuffer(pixels, np.uint8))
        assert type(back) is type(result) and back.digest == result.digest
        if isinstance(result, Reading) and isinstance(back, Reading):
            np.testing.assert_array_equal(back.pixels, result.pixels)
            assert (back.header, back.applied, back.flags) == (result.header, result.applied, result.flags)


def _valid() -> dict:
    text, _ = to_wire(read(good(), ReadConfig()))
    return json.loads(text[LENGTHS.size :])


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [-1, -1]},
        {"shape": [1, 2, 3]},
        {"shape": [10**9, 10**9]},
        {"shape": ["512", 1]},
        {"view": "../../etc"},
        {"digest": "x" * 64},
        {"digest": None},
        {"header": {"patient_id": "x" * 600}},
        {"header": {"patient_id": ["a"]}},
        {"header": {"unheard_of": "a"}},
        {"header": []},
        {"flags": ["<script>"]},
        {"flags": "abc"},
        {"flags": ["a"] * 1000},
        {"scores": {"inverted": 1e30}},
        {"scores": {"inverted": "high"}},
        {"scores": {"inverted": True}},
        {"applied": {"crop": "Doe, Jane; 1970"}},
        {"applied": {"a" * 100: 1}},
        {"applied": {"crop": {"deep": 1}}},
        {"reason": "no_such_code", "note": ""},
        {"reason": "crashed", "note": "Doe, Jane (1970)"},
    ],
)
def test_the_parent_believes_nothing(change: dict) -> None:
    pixels = np.zeros(_valid()["shape"][0] * _valid()["shape"][1], np.uint8)
    from_wire(json.dumps(_valid()).encode(), pixels)  # the unchanged message passes
    with pytest.raises(WireError):
        from_wire(json.dumps(_valid() | change).encode(), pixels)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"1", b"[" * 100_000, b"\xff\xfe", b'{"header":1}'])
def test_nonsense_on_the_wire(text: bytes) -> None:
    with pytest.raises(WireError):
        from_wire(text, np.zeros(0, np.uint8))


@pytest.mark.parametrize(
    "head",
    [LENGTHS.pack(b"EVIL", 1, 1), LENGTHS.pack(MAGIC, MOST_JSON + 1, 0), LENGTHS.pack(MAGIC, 1, 1 << 62)],
)
def test_lengths_are_capped_before_anything_is_allocated(head: bytes) -> None:
    with pytest.raises(WireError):
        lengths(head)
