"""Store, secret, index, state, socket, reports: each fault is named, and looking changes nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from client.ingest.keys import keyed, site_secret
from client.ingest.reports import ReportsConfig
from client.ingest.siteindex import SiteIndex
from client.ingest.writer import StoreWriter
from client.preflight.outcome import Check, Level
from client.preflight.places import (
    REPORTS_TRIED,
    SOCKET_PATH_BYTES,
    check_index,
    check_reports,
    check_secret,
    check_socket,
    check_state,
    check_store,
)
from client.site_config import index_beside

NOWHERE = Path("/proc")  # nobody can write there, root neither
KEY = bytes(range(32))


@pytest.fixture
def store(tmp_path) -> Callable[..., Path]:
    """``store(n)`` makes a store of n images, unfinished with ``finish=False``."""

    def make(images: int = 2, finish: bool = True) -> Path:
        path = tmp_path / "store"
        path.mkdir(mode=0o750)
        with StoreWriter(path, secret=KEY) as writer:
            for i in range(images):
                row = {name: keyed(KEY, name, str(i)) for name in ("image", "patient", "study", "digest")}
                writer.add({**row, "source": "here", "view": "PA"}, np.full((64, 64), i, np.uint8))
            if finish:
                writer.finish()
        return path

    return make


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


def levels(found: list[Check]) -> list[Level]:
    return [check.level for check in found]


def only(found: list[Check]) -> Check:
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("below", ["store", "a/b/store"])
def test_a_store_to_be_made(tmp_path, below):
    assert only(list(check_store(tmp_path / below))).level is Level.OK
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_counted_and_left_as_it_was(tmp_path, store):
    path = store(3)
    before = snapshot(tmp_path)
    check = only(list(check_store(path)))
    assert check.level is Level.OK and "3 images of 3 patients" in check.text
    assert snapshot(tmp_path) == before


def test_an_empty_folder_becomes_a_store(tmp_path):
    (tmp_path / "store").mkdir(mode=0o700)
    assert only(list(check_store(tmp_path / "store"))).level is Level.OK


@pytest.mark.parametrize(("images", "finish", "word"), [(2, False, "run it again"), (0, True, "holds no image")])
def test_a_store_that_is_not_done(store, images, finish, word):
    check = only(list(check_store(store(images, finish))))
    assert check.level is Level.WARNING and word in check.text


def test_a_damaged_store(store):
    path = store()
    (path / "studies.parquet").write_bytes(b"")
    assert only(list(check_store(path))).level is Level.ERROR
    (path / "store.json").write_bytes(b"{")
    assert "not valid JSON" in only(list(check_store(path))).text


def test_a_folder_of_other_things_is_no_store(tmp_path):
    path = tmp_path / "store"
    path.mkdir(mode=0o700)
    (path / "holiday.jpg").touch()
    assert "other things" in only(list(check_store(path))).text


def test_a_file_is_no_store(tmp_path):
    path = tmp_path / "store"
    path.touch()
    assert only(list(check_store(path))).level is Level.ERROR
    assert "is not a folder" in only(list(check_store(path / "below"))).text


def test_a_place_that_cannot_be_written():
    assert "cannot be made" in only(list(check_store(NOWHERE / "store"))).text
    found = list(check_store(NOWHERE))
    assert found[0].level is Level.ERROR and "cannot be written to" in found[0].text


def test_others_can_look_into_the_store(store):
    path = store()
    path.chmod(0o755)
    found = list(check_store(path))
    assert levels(found) == [Level.WARNING, Level.OK] and "chmod o-rwx" in found[0].text


def test_an_ingest_is_running(store):
    path = store()
    with open(path / ".lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = list(check_store(path))
    assert "writing to it now" in found[0].text and levels(found) == [Level.WARNING, Level.OK]


def test_a_secret(tmp_path):
    path = tmp_path / "secret"
    assert "made on first use" in only(list(check_secret(path, tmp_path / "store"))).text
    assert not path.exists()
    text = site_secret(path).hex()
    check = only(list(check_secret(path, tmp_path / "store")))
    assert check.level is Level.OK and "0600" in check.text and text[:8] not in check.text


@pytest.mark.parametrize(
    ("content", "mode", "word"),
    [("ab" * 32, 0o640, "0640"), ("ab" * 4, 0o600, "32 expected"), ("hello", 0o600, "hexadecimal")],
    ids=("exposed", "short", "damaged"),
)
def test_a_bad_secret(tmp_path, content, mode, word):
    path = tmp_path / "secret"
    path.write_text(content)
    path.chmod(mode)
    check = only(list(check_secret(path, tmp_path / "store")))
    assert check.level is Level.ERROR and word in check.text and content not in check.text


def test_a_secret_that_is_gone_while_the_store_needs_it(tmp_path, store):
    check = only(list(check_secret(tmp_path / "secret", store())))
    assert check.level is Level.ERROR and "backup" in check.text


def test_a_secret_that_cannot_be_made(tmp_path):
    assert "mkdir" in only(list(check_secret(tmp_path / "keys" / "secret", tmp_path / "store"))).text
    assert "cannot be written to" in only(list(check_secret(NOWHERE / "secret", tmp_path / "store"))).text
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    assert "link to nothing" in only(list(check_secret(tmp_path / "link", tmp_path / "store"))).text


def test_a_secret_that_others_could_replace(tmp_path):
    folder = tmp_path / "keys"
    folder.mkdir()
    folder.chmod(0o777)
    assert levels(list(check_secret(folder / "secret", tmp_path / "store"))) == [Level.OK, Level.WARNING]
    folder.chmod(0o1777)  # sticky: only the owner can
    assert levels(list(check_secret(folder / "secret", tmp_path / "store"))) == [Level.OK]


def test_the_index(tmp_path):
    secret, store = tmp_path / "secret", tmp_path / "store"
    path = index_beside(secret)
    assert only(list(check_index(secret, store))).level is Level.OK and not path.exists()
    with SiteIndex(path, store):
        busy = only(list(check_index(secret, store)))
    assert busy.level is Level.WARNING and "another ingest" in busy.text
    assert only(list(check_index(secret, store))).level is Level.OK
    path.chmod(0o644)
    assert "chmod 600" in only(list(check_index(secret, store))).text
    path.chmod(0o600)
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    assert only(list(check_index(secret, store))).level is Level.ERROR
    assert only(list(check_index(tmp_path / "keys" / "secret", store))).level is Level.ERROR
    assert only(list(check_index(NOWHERE / "secret", store))).level is Level.ERROR


def test_the_state_folder(tmp_path):
    path = tmp_path / "a" / "state"
    assert only(list(check_state(path))).level is Level.OK and not path.parent.exists()
    path.mkdir(parents=True, mode=0o700)
    assert only(list(check_state(path))).level is Level.OK
    path.chmod(0o770)
    assert only(list(check_state(path))).level is Level.WARNING
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "file", tmp_path / "file" / "below", NOWHERE, NOWHERE / "state"):
        assert only(list(check_state(wrong))).level is Level.ERROR, wrong


def test_the_socket(tmp_path):
    folder = tmp_path / "run"
    path = folder / "s"
    assert only(list(check_socket(None))).level is Level.WARNING
    assert only(list(check_socket(path))).level is Level.OK and not folder.exists()
    folder.mkdir(mode=0o700)
    assert only(list(check_socket(path))).level is Level.OK
    path.touch()
    assert "no socket" in only(list(check_socket(path))).text
    path.unlink()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(path))
        assert "listening" not in only(list(check_socket(path))).text  # left behind
        server.listen()
        assert "listening there now" in only(list(check_socket(path))).text
    folder.chmod(0o750)
    assert "chmod 700" in only(list(check_socket(path))).text
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "file" / "s", tmp_path / "file" / "below" / "s", NOWHERE / "x" / "s"):
        assert only(list(check_socket(wrong))).level is Level.ERROR, wrong


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_socket_folder_of_somebody_else(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, -1)
    assert "belongs to user 12345" in only(list(check_socket(folder / "s"))).text


def test_the_limit_of_a_sockets_path_is_the_kernels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for length, fits in ((SOCKET_PATH_BYTES, True), (SOCKET_PATH_BYTES + 1, False)):
        name = "s" * length
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as server, contextlib.ExitStack() as stack:
            if not fits:
                stack.enter_context(pytest.raises(OSError))
            server.bind(name)
        long = tmp_path / ("s" * (length - len(str(tmp_path)) - 1))
        assert any("shorter path" in check.text for check in check_socket(long)) is not fits


CSV = "study_uid,text,date\n"
ROW = "1.2.{n},FINDINGS: clear for Mr Sentinel,2020-01-01\n"


def report_file(folder: Path, text: str | bytes) -> Path:
    path = folder / "reports.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_reports_that_can_be_read(tmp_path):
    path = report_file(tmp_path, CSV + "".join(ROW.format(n=n) for n in range(3)))
    check = only(list(check_reports(path, ReportsConfig())))
    assert check.level is Level.OK and "all 3" in check.text
    assert list(check_reports(None, ReportsConfig())) == []


def test_only_the_beginning_of_many_reports_is_read(tmp_path):
    broken = b"1.2.3,\xff\xfe\x81\xfa\n"
    path = report_file(tmp_path, (CSV + "".join(ROW.format(n=n) for n in range(REPORTS_TRIED))).encode() + broken * 50)
    assert f"first {REPORTS_TRIED}" in only(list(check_reports(path, ReportsConfig(encoding="utf-8")))).text


@pytest.mark.parametrize(
    ("content", "settings", "word"),
    [
        ("a,b\n1,2\n", {}, "text"),
        (CSV + ROW, {"accession": "Auftragsnummer"}, "Auftragsnummer"),
        (CSV, {}, "none there"),
        (CSV + '1.2.3,"never closed', {}, "none of all 1"),
        ("", {}, "text"),
    ],
)
def test_reports_that_cannot(tmp_path, content, settings, word):
    check = only(list(check_reports(report_file(tmp_path, content), ReportsConfig(**settings))))
    assert check.level is Level.ERROR and word in check.text and "Sentinel" not in check.text


def test_some_bad_rows_are_counted_and_never_shown(tmp_path):
    path = report_file(tmp_path, CSV + ROW.format(n=1) + "1.2.99,too,many,cells Sentinel\n" + "1.2.4,,2020-01-01\n")
    found = list(check_reports(path, ReportsConfig()))
    assert levels(found) == [Level.WARNING] * 2
    text = " ".join(check.text for check in found)
    assert "1 of all 3: report_malformed" in text and "1 of all 3: report_empty" in text and "Sentinel" not in text


def test_a_folder_of_reports(tmp_path):
    (tmp_path / "ACC-SENTINEL.txt").write_text("IMPRESSION: clear")
    assert only(list(check_reports(tmp_path, ReportsConfig()))).level is Level.OK
    (tmp_path / "ACC-SENTINEL.txt").write_text("")
    check = only(list(check_reports(tmp_path, ReportsConfig())))
    assert check.level is Level.ERROR and "SENTINEL" not in check.text
    assert only(list(check_reports(tmp_path / "gone", ReportsConfig()))).level is Level.ERROR
