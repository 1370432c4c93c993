from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.ingest.codes import Reason
from client.ingest.writer import RowError, StoreWriteError, StoreWriter
from models.studies.store import Store, StoreError

Rows = Callable[..., dict[str, Any]]
Pixels = Callable[..., np.ndarray]
Files = Callable[[Path], dict[str, bytes]]


def fill(path: Path, secret: bytes, row: Rows, pixels: Pixels, numbers: range, **options: Any) -> None:
    with StoreWriter(path, secret=secret, **options) as writer:
        for i in numbers:
            values = row(i, patient=f"p{i // 2}", day=i)
            if not writer.has(values["digest"]):
                writer.add(values, pixels(i))
        writer.finish()


def test_what_is_written_is_what_is_read(tmp_path: Path, secret: bytes, row: Rows, pixels: Pixels) -> None:
    path = tmp_path / "store"
    with StoreWriter(path, findings=("Own Label",), preprocessing={"a": 1}, secret=secret) as writer:
        values = row(0, **{"label:Own Label": 1, "label:Edema": -1}, findings="Clear.", flags="cut:0.5,dim")
        writer.add(values, pixels(0))
        writer.add(row(1, study=0, day=4, sex="F", age_band="50-59"), pixels(1, 100, 30))
        about = writer.finish()
    store = Store.open(path)
    assert about == store.about
    assert about["counts"] == {"images": 2, "studies": 1, "patients": 1, "pairs": 0, "shards": 1}
    assert about["sources"] == {"here": 2} and about["preprocessing"] == {"a": 1}
    np.testing.assert_array_equal(store.pixels(0), pixels(0))
    np.testing.assert_array_equal(store.pixels(1), pixels(1, 100, 30))
    assert store.labels(["Own Label", "Edema", "Fracture"]).tolist() == [[1, -1, -2], [-2, -2, -2]]
    first, second = store.table.to_pylist()
    assert first["findings"] == "Clear." and first["flags"] == "cut:0.5,dim" and first["sex"] == "UNKNOWN"
    assert second["age_band"] == "50-59" and second["day"] == 0 and second["image"] == row(1)["image"]


def test_reopening_goes_on_and_adds_nothing_twice(
    tmp_path: Path, secret: bytes, row: Rows, pixels: Pixels, files: Files
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fill(whole, secret, row, pixels, range(9))
    for end in (3, 3, 7, 9):
        fill(parts, secret, row, pixels, range(end))
    assert files(whole) == files(parts)


def test_shards_roll_over(tmp_path: Path, secret: bytes, row: Rows, pixels: Pixels, files: Files) -> None:
    size = 40 * 48
    one, two = tmp_path / "one", tmp_path / "two"
    fill(one, secret, row, pixels, range(7), shard_bytes=3 * size)
    for end in (3, 4, 7):  # once exactly at the end of a shard
        fill(two, secret, row, pixels, range(end), shard_bytes=3 * size)
    assert files(one) == files(two)
    assert [len(data) for name, data in files(one).items() if name.endswith(".u8")] == [
        3 * size,
        3 * size,
        size,
    ]
    store = Store.open(one)
    for i in range(7):
        np.testing.assert_array_equal(store.pixels(i), pixels(i))


@pytest.mark.parametrize("kept", [0, 1, 10, 200, 300, 10_000])
def test_a_torn_journal_loses_the_item_in_hand_only(
    tmp_path: Path, secret: bytes, row: Rows, pixels: Pixels, files: Files, kept: int
) -> None:
    """Cut the journal ``kept`` bytes before its end (as a kill would), run again: the store is the same."""
    path = tmp_path / "store"
    fill(path, secret, row, pixels, range(6))
    whole = files(path)
    journal = path / "journal.jsonl"
    journal.write_bytes(whole["journal.jsonl"][: -kept or None])
    fill(path, secret, row, pixels, range(6))
    assert files(path) == whole


@pytest.mark.parametrize("damage", ["cut", "zeros", "gone"])
def test_pixels_that_a_power_cut_lost_are_written_again(
    tmp_path: Path, secret: bytes, row: Rows, pixels: Pixels, files: Files, damage: str
) -> None:
    path = tmp_path / "store"
    fill(path, secret, row, pixels, range(6))
    whole = files(path)
    shard = path / "images" / "shard-00000.u8"
    data = shard.read_bytes()
    if damage == "cut":
        shard.write_bytes(data[:-10])
    elif damage == "zeros":
        shard.write_bytes(data[: -3 * 40 * 48] + bytes(3 * 40 * 48))
    else:
        shard.unlink()
    with StoreWriter(path, secret=secret) as writer:
        assert len(writer) == {"cut": 5, "zeros": 3, "gone": 0}[damage]
    fill(path, secret, row, pixels, range(6))
    assert files(path) == whole


@pytest.mark.parametrize("call", ["pwrite", "replace"])
def test_killed_inside_any_write_and_run_again_is_the_same_store(
    tmp_path: Path, secret: bytes, row: Rows, pixels: Pixels, files: Files, call: str
) -> None:
    """The process dies (SIGKILL) half-way through its n-th write, for every n; then it is run again."""
    whole = tmp_path / "whole"
    fill(whole, secret, row, pixels, range(4), shard_bytes=3 * 40 * 48)
    real, number = getattr(os, call), 0
    while True:
        number += 1
        path = tmp_path / str(number)
        child = os.fork()
        if not child:
            count = 0

            def die(*arguments: Any) -> Any:
                nonlocal count
                count += 1
                if count == number:  # noqa: B023
                    if call == "pwrite":
                        handle, data, position = arguments
                        real(handle, data[: len(data) // 2], position)
                    os.kill(os.getpid(), 9)
                return real(*arguments)

            setattr(os, call, die)
            fill(path, secret, row, pixels, range(4), shard_bytes=3 * 40 * 48)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        fill(path, secret, row, pixels, range(4), shard_bytes=3 * 40 * 48)
        assert files(path) == files(whole)
        if not os.WIFSIGNALED(status):
            break
    assert number == {"pwrite": 1 + 2 * 4, "replace": 2}[call] + 1


def test_old_damage_is_said_not_dropped(
    tmp_path: Path, secret: bytes, row: Rows, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.ingest.writer.SYNC_EVERY", 2)
    path = tmp_path / "store"
    fill(path, secret, row, pixels, range(6))
    shard = path / "images" / "shard-00000.u8"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(StoreWriteError, match="shorter than the journal says"):
        StoreWriter(path, secret=secret)
    journal = path / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:2], b"garbage\n", *lines[3:]]))
    with pytest.raises(StoreWriteError, match="line 3 is damaged"):
        StoreWriter(path, secret=secret)


def test_a_failed_opening_lets_go_of_the_lock(tmp_path: Path, secret: bytes, row: Rows, pixels: Pixels) -> None:
    path = tmp_path / "store"
    fill(path, secret, row, pixels, range(1))
    with pytest.raises(StoreWriteError, match="begun with short_side = 512, now 256"):
        StoreWriter(path, short_side=256, secret=secret)
    with pytest.raises(StoreWriteError, match="preprocessing"):
        StoreWriter(path, preprocessing={"other": True}, secret=secret)
    StoreWriter(path, secret=secret).close()


def test_findings_can_be_added_later(tmp_path: Path, secret: bytes, row: Rows, pixels: Pixels) -> None:
    path = tmp_path / "store"
    fill(path, secret, row, pixels, range(1))
    with StoreWriter(path, findings=("Later",), secret=secret) as writer:
        writer.add(row(5, **{"label:Later": 1}), pixels(5))
    with StoreWriter(path, secret=secret) as writer:  # remembers
        writer.add(row(6, **{"label:Later": 0}), pixels(6))
        writer.finish()
    assert Store.open(path).labels(["Later"]).tolist() == [[-2], [1], [0]]
    with pytest.raises(ValueError, match="not allowed"):
        StoreWriter(path, findings=("free text, with a comma",), secret=secret)


def test_an_empty_store_is_finished_and_said_to_be_empty(tmp_path: Path, secret: bytes) -> None:
    with StoreWriter(tmp_path / "store", secret=secret) as writer:
        writer.finish()
    with pytest.raises(StoreError, match="holds no image"):
        Store.open(tmp_path / "store")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name": "Doe"}, "'name' is not in the schema"),
        ({"patient": "12345"}, "keyed hash"),
        ({"image": None}, "keyed hash"),
        ({"shard": 0}, "assigned by the writer"),
        ({"prior": "0" * 32}, "assigned by the writer"),
        ({"view": "OBLIQUE"}, "allowed: PA, AP"),
        ({"sex": "f"}, "vocabulary"),
        ({"age_band": "57"}, "vocabulary"),
        ({"day": 1.5}, "integer"),
        ({"day": True}, "integer"),
        ({"order": 2**31}, "integer"),
        ({"source": "Dr. Jane Doe, Ward 3"}, "short name"),
        ({"source": None}, "short name"),
        ({"flags": "Jane Doe"}, "words of a-z"),
        ({"findings": 3}, "text is needed"),
        ({"label:Edema": 2}, "UNCERTAIN"),
        ({"label:Edema": True}, "UNCERTAIN"),
        ({"label:Edema": None}, "UNCERTAIN"),
        ({"label:Unknown One": 1}, "declare it"),
    ],
)
def test_a_row_outside_the_schema_is_refused(
    tmp_path: Path, secret: bytes, row: Rows, pixels: Pixels, change: dict[str, Any], text: str
) -> None:
    with StoreWriter(tmp_path / "store", secret=secret) as writer:
        with pytest.raises(RowError, match=text):
            writer.add({**row(0), **change}, pixels(0))
        assert len(writer) == 0


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 4), np.uint16),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros((513, 513), np.uint8),
    ],
)
def test_pixels_that_do_not_fit_are_refused(tmp_path: Path, secret: bytes, row: Rows, bad: np.ndarray) -> None:
    with StoreWriter(tmp_path / "store", secret=secret) as writer, pytest.raises(RowError, match="pixels"):
        writer.add(row(0), bad)


def test_an_image_is_added_once(tmp_path: Path, secret: bytes, row: Rows, pixels: Pixels) -> None:
    with StoreWriter(tmp_path / "store", secret=secret) as writer:
        writer.add(row(0), pixels(0))
        for again in (row(0), {**row(1), "image": row(0)["image"]}, {**row(1), "digest": row(0)["digest"]}):
            with pytest.raises(RowError, match="already"):
                writer.add(again, pixels(0))
        assert writer.has(row(0)["digest"]) and not writer.has(row(1)["digest"])
        assert writer.digest_of(row(0)["image"]) == row(0)["digest"]
        assert writer.patient_of(row(0)["digest"]) == row(0)["patient"]


def test_edited_rows_are_noticed(tmp_path: Path, secret: bytes, row: Rows, pixels: Pixels) -> None:
    path = tmp_path / "store"
    with StoreWriter(path, secret=secret) as writer:
        writer.add(row(0, **{"label:Edema": 1}), pixels(0))
    with StoreWriter(path, secret=secret) as writer:
        assert not writer.differs(row(0, **{"label:Edema": 1}))
        assert writer.differs(row(0, **{"label:Edema": 0}))
        assert not writer.differs(row(1))


def test_quarantine_is_keyed_and_idempotent(tmp_path: Path, secret: bytes, files: Files) -> None:
    path = tmp_path / "store"
    for _ in range(2):
        with StoreWriter(path, secret=secret) as writer:
            writer.quarantine(Reason.BLANK_IMAGE, "jane-doe.png")
            writer.quarantine(Reason.BLANK_IMAGE, "jane-doe.png")
            writer.quarantine(Reason.TOO_SMALL, "other.png")
    lines = [json.loads(line) for line in (path / "quarantine.jsonl").read_text().splitlines()]
    assert [line["code"] for line in lines] == ["blank_image", "too_small"]
    assert all(set(line) == {"item", "code"} and len(line["item"]) == 32 for line in lines)
    assert all(b"jane" not in data for data in files(path).values())
    with StoreWriter(path, secret=secret) as writer:
        writer.release("jane-doe.png")
        writer.release("never noted")
        writer.quarantine(Reason.CRASHED, "third.png")
    codes = [json.loads(line)["code"] for line in (path / "quarantine.jsonl").read_text().splitlines()]
    assert codes == ["too_small", "crashed"]


def test_a_torn_quarantine_is_mended(tmp_path: Path, secret: bytes) -> None:
    path = tmp_path / "store"
    with StoreWriter(path, secret=secret) as writer:
        writer.quarantine(Reason.CRASHED, "a")
    with open(path / "quarantine.jsonl", "ab") as file:
        file.write(b'{"item": "00')
    with StoreWriter(path, secret=secret) as writer:
        writer.quarantine(Reason.CRASHED, "b")
    assert len([json.loads(line) for line in (path / "quarantine.jsonl").read_text().splitlines()]) == 2


def test_the_journal_holds_no_place_for_identifiers(tmp_path: Path, secret: bytes, row: Rows, pixels: Pixels) -> None:
    from models.studies.schema import COLUMNS

    path = tmp_path / "store"
    fill(path, secret, row, pixels, range(2))
    for line in (path / "journal.jsonl").read_text().splitlines()[1:]:
        assert set(json.loads(line)) <= {*COLUMNS, "crc", "row"}
    assert secret not in b"".join(file.read_bytes() for file in path.rglob("*") if file.is_file())


HOLD = """
import sys, time
from pathlib import Path
from client.ingest.writer import StoreWriter
with StoreWriter(Path(sys.argv[1]), secret=bytes(32)):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(path: Path, seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_refused_or_waits(tmp_path: Path) -> None:
    path = tmp_path / "store"
    process = hold(path, 1.5)
    try:
        with pytest.raises(StoreWriteError, match="another process is writing"):
            StoreWriter(path, secret=bytes(32))
        begun = time.monotonic()
        with pytest.raises(StoreWriteError, match=r"waited 0\.2 s"):
            StoreWriter(path, secret=bytes(32), wait_seconds=0.2)
        assert time.monotonic() - begun < 1.2
        StoreWriter(path, secret=bytes(32), wait_seconds=30).close()
    finally:
        process.kill()
        process.wait()


def test_a_killed_writer_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "store"
    process = hold(path, 60)
    process.kill()
    process.wait()
    StoreWriter(path, secret=bytes(32), wait_seconds=5).close()


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from client.ingest.writer import StoreWriter, StoreWriteError, keyed
path, limit, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
secret = bytes(32)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with StoreWriter(path, secret=secret) as writer:
        for i in range(count):
            digest = keyed(secret, "digest", str(i))
            if not writer.has(digest):
                pixels = np.full((64, 64), i, np.uint8)
                keys = {name: keyed(secret, name, str(i)) for name in ("image", "patient", "study")}
                writer.add({**keys, "digest": digest, "source": "here"}, pixels)
        writer.finish()
except StoreWriteError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.parametrize("limit", [3000, 9000, 64 * 64 * 10 + 7])
def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path: Path, files: Files, limit: int) -> None:
    """The kernel itself refuses to grow a file past ``limit``; with room again, nothing is missing."""

    def run(path: Path, limit: int) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-c", FULL, str(path), str(limit), "20"]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=60)

    stopped = run(tmp_path / "store", limit)
    assert stopped.returncode == 7, stopped.stderr
    assert "no room left" in stopped.stdout and "Free space" in stopped.stdout
    assert run(tmp_path / "store", 0).returncode == 0
    assert run(tmp_path / "fresh", 0).returncode == 0
    assert files(tmp_path / "store") == files(tmp_path / "fresh")


@pytest.mark.parametrize("number", ["EROFS", "EACCES"])
def test_a_read_only_store_is_said(
    tmp_path: Path, secret: bytes, row: Rows, pixels: Pixels, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    import errno

    def refuse(*_: Any) -> int:
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))

    with StoreWriter(tmp_path / "store", secret=secret) as writer:
        monkeypatch.setattr(os, "pwrite", refuse)
        with pytest.raises(StoreWriteError, match="not writable"):
            writer.add(row(0), pixels(0))
        monkeypatch.undo()
        writer.add(row(0), pixels(0))  # nothing half-done is in the way
        writer.finish()
    assert len(Store.open(tmp_path / "store")) == 1


def test_a_store_where_a_file_stands(tmp_path: Path, secret: bytes) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreWriteError):
        StoreWriter(tmp_path / "store", secret=secret)
