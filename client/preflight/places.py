"""The files and folders of a site: store, secret, private index, state, socket, reports."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import socket as sockets
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from client.ingest.codes import ADVICE
from client.preflight.outcome import Check, error, ok, warning
from models.config import ConfigError

if TYPE_CHECKING:
    from client.ingest.reports import ReportsConfig

SOCKET_PATH_BYTES = 107
"""Longest path of a UNIX socket on Linux (sun_path holds 108 bytes, the last one zero)."""

REPORTS_TRIED = 1000


def nearest_folder(path: Path) -> Path:
    """``path``, or the nearest thing above it that exists."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def not_writable(folder: Path) -> str | None:
    """Why nothing can be written to an existing folder; ``None`` if it can. Leaves nothing behind."""
    try:
        with tempfile.TemporaryFile(dir=folder):  # rights alone say nothing of a read-only or full disk
            return None
    except OSError as failure:
        return failure.strerror or type(failure).__name__


def _cannot_make(path: Path) -> str | None:
    """Why a folder at ``path`` cannot be made; ``None`` if it can."""
    above = nearest_folder(path.parent)
    if path.is_symlink():
        return f"{path} is a link to nothing; remove it"
    if not above.is_dir():
        return f"{above} is not a folder"
    why = not_writable(above)
    return f"{above} cannot be written to ({why})" if why else None


def check_store(store: Path) -> Iterator[Check]:
    """The store opens and can be written, or can be made."""
    if not store.exists():
        why = _cannot_make(store)
        yield (
            error("store", f"{store} cannot be made: {why}")
            if why
            else ok("store", f"{store}: not there yet; the first ingest makes it")
        )
        return
    if not store.is_dir():
        yield error("store", f"{store}: not a folder; name a folder, or remove the file")
        return
    why = not_writable(store)
    if why:
        yield error("store", f"{store}: cannot be written to ({why}); let this user write there")
    if store.stat().st_mode & stat.S_IRWXO:
        yield warning(
            "store", f"{store}: mode {_mode(store)}; others on this machine can look into it: chmod o-rwx {store}"
        )
    if _held(store / ".lock"):
        yield warning("store", f"{store}: an ingest is writing to it now; a second one would have to wait")
    found = _contents(store)
    if not (why and found.level == "ok"):
        yield found


def _contents(store: Path) -> Check:
    from models.studies.store import Store, StoreError

    if not any(store.iterdir()):
        return ok("store", f"{store}: empty; the first ingest fills it")
    begun, finished = (store / "journal.jsonl").exists(), (store / "store.json").exists()
    if not begun and not finished:
        return error("store", f"{store}: holds other things than a study store; name a new folder")
    if not finished:
        return warning("store", f"{store}: an ingest began here and did not finish; run it again, it goes on")
    if _images(store) == 0:
        return warning("store", f"{store}: holds no image; fedcxr-site inspect says why its files were refused")
    try:
        opened = Store.open(store)
    except StoreError as failure:
        return error("store", str(failure))
    return ok("store", f"{store}: {len(opened)} images of {len(opened.patients.keys)} patients")


def _images(store: Path) -> int | None:
    try:
        return int(json.loads((store / "store.json").read_bytes())["counts"]["images"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _held(lock: Path) -> bool:
    """Whether another process holds the store's lock."""
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def check_secret(secret: Path, store: Path) -> Iterator[Check]:
    """The secret is there and nobody else can read it, or it can be made."""
    from client.ingest.keys import SecretError, site_secret

    if secret.exists():
        try:
            site_secret(secret)
        except SecretError as failure:
            yield error("secret", str(failure))
        else:
            yield ok("secret", f"{secret}: whole, mode {_mode(secret)}; keep a backup of it apart from the store's")
    elif secret.is_symlink():
        yield error("secret", f"{secret}: a link to nothing; restore what it names, or remove it")
    elif _images(store):
        yield error(
            "secret",
            f"{secret}: missing, though the store holds images named by it; restore it from its backup. "
            "A new one would make every known patient a stranger",
        )
    elif not secret.parent.is_dir():
        yield error("secret", f"{secret}: its folder is missing: mkdir -p -m 700 {secret.parent}")
    elif why := not_writable(secret.parent):
        yield error("secret", f"{secret} cannot be made: {secret.parent} cannot be written to ({why})")
    else:
        yield ok("secret", f"{secret}: not there yet; made on first use with mode 0600. Back it up then")
    folder = secret.parent
    if (
        folder.is_dir()
        and folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        and not folder.stat().st_mode & stat.S_ISVTX
    ):
        yield warning(
            "secret", f"{folder}: mode {_mode(folder)}; others could put another secret there: chmod go-w {folder}"
        )


def check_index(secret: Path, store: Path) -> Iterator[Check]:
    """The private index can be used, or can be made."""
    from client.ingest.siteindex import IndexFileError, SiteIndex
    from client.site_config import index_beside

    path = index_beside(secret)
    if path.exists() or path.is_symlink():
        try:
            SiteIndex(path, store).close()
        except IndexFileError as failure:
            busy = "another ingest" in str(failure)
            yield (warning if busy else error)("index", f"{path.parent}: {failure}")
        else:
            yield ok("index", f"{path}: usable, mode {_mode(path)}")
    elif path.parent.is_dir() and not (why := not_writable(path.parent)):
        yield ok("index", f"{path}: not there yet; the first ingest makes it")
    elif path.parent.is_dir():
        yield error("index", f"{path} cannot be made: {path.parent} cannot be written to ({why})")
    else:
        yield error("index", f"{path} cannot be made: its folder is missing")


def check_state(state: Path) -> Iterator[Check]:
    """The folder of the ledgers is there and private, or can be made."""
    if not state.exists():
        why = _cannot_make(state)
        yield (
            error("state", f"{state} cannot be made: {why}")
            if why
            else ok("state", f"{state}: not there yet; made when the trainer first answers")
        )
    elif not state.is_dir():
        yield error("state", f"{state}: not a folder; name a folder, or remove the file")
    elif why := not_writable(state):
        yield error(
            "state", f"{state}: cannot be written to ({why}), so no ledger could be kept; let this user write there"
        )
    elif state.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield warning("state", f"{state}: mode {_mode(state)}; others could change the ledgers: chmod go-w {state}")
    else:
        yield ok("state", f"{state}: can be written to")


def check_socket(socket: Path | None) -> Iterator[Check]:
    """The folder of the trainer's socket is this user's alone, or can be made so."""
    if socket is None:
        yield warning("socket", "not set; fedcxr-site serve needs a path to listen on")
        return
    length = len(os.fsencode(socket))
    if length > SOCKET_PATH_BYTES:
        yield error("socket", f"{socket}: {length} bytes, {SOCKET_PATH_BYTES} are allowed; choose a shorter path")
    folder = socket.parent
    if not folder.exists():
        why = _cannot_make(folder)
        yield (
            error("socket", f"{folder} cannot be made: {why}")
            if why
            else ok("socket", f"{folder}: not there yet; made with mode 0700 when the trainer starts")
        )
        return
    if not folder.is_dir():
        yield error("socket", f"{folder}: not a folder; name another path")
        return
    status = folder.stat()
    if status.st_uid != os.getuid():
        yield error("socket", f"{folder}: belongs to user {status.st_uid}, not to this one ({os.getuid()}); chown it")
    elif status.st_mode & 0o077:
        yield error("socket", f"{folder}: mode {_mode(folder)}; others could ask the trainer: chmod 700 {folder}")
    elif why := not_writable(folder):
        yield error("socket", f"{folder}: cannot be written to ({why})")
    elif socket.exists() and not socket.is_socket():
        yield error("socket", f"{socket}: a file that is no socket stands there; remove it")
    else:
        state = "; a trainer is listening there now" if socket.exists() and _answers(socket) else ""
        yield ok("socket", f"{socket}: its folder is this user's alone{state}")


def _answers(socket: Path) -> bool:
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(socket))
        except OSError:
            return False
    return True


def check_reports(path: Path | None, settings: ReportsConfig) -> Iterator[Check]:
    """The columns are there, and the first reports can be read. Shows nothing of the file."""
    from client.ingest.reports import Report, ReportFiles

    if path is None:
        return
    try:
        files = ReportFiles(path, settings)
    except ConfigError as failure:
        yield error("reports", str(failure))
        return
    seen = list(itertools.islice(files, REPORTS_TRIED))
    readable = sum(isinstance(item, Report) for item in seen)
    tried = f"the first {len(seen)}" if len(seen) == REPORTS_TRIED else f"all {len(seen)}"
    problems = Counter(item.reason for item in seen if not isinstance(item, Report))
    if not seen:
        yield error("reports", "none there; give a CSV with a row for each study, or a folder with one text file each")
    elif not readable:
        reason = problems.most_common(1)[0][0]
        yield error("reports", f"none of {tried} can be read, mostly {reason}: {ADVICE[reason]}")
    elif problems:
        for reason, count in problems.most_common():
            yield warning("reports", f"{count} of {tried}: {reason}: {ADVICE[reason]}")
    else:
        yield ok("reports", f"columns found; {tried} can be read")


def _mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"
