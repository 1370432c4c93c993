"""The child process that reads DICOM files: started by :mod:`client.ingest.sandbox`, one file at a time.

It gets open files over a socket and answers with JSON and pixels. Before the first file it gives up what it
does not need: memory, core dumps, writing, new processes, and the network where the kernel lets it.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import json
import logging
import os
import resource
import socket
import sys
import warnings

import cv2
from pydicom import config as pydicom_config

from client.ingest import codecs
from client.ingest.codes import Reason
from client.ingest.limits import Limits
from client.ingest.reading import Heading, ReadConfig, Reading, Refused, read, read_heading
from client.ingest.wire import HEADING, LENGTHS, MAGIC, to_wire
from models.config import build

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_NO_NEW_PRIVS = 38
_RECURSION = 400  # frames; the deepest legitimate sequence needs some tens


def main() -> None:
    """Serve files from the socket whose descriptor is the first argument, until the parent closes it."""
    with socket.socket(fileno=int(sys.argv[1])) as parent:
        config = build(ReadConfig, json.loads(_receive_text(parent)))
        _silence()
        cut = _confine(config.limits)
        ready = json.dumps({"network_cut": cut}).encode()
        parent.sendall(LENGTHS.pack(MAGIC, len(ready), 0) + ready)
        while (received := _receive_file(parent)) is not None:
            _allow_seconds(config.limits.cpu_seconds)
            head, pixels = to_wire(_read(*received, config))
            parent.sendall(head)
            parent.sendall(pixels)


def _read(wish: bytes, descriptor: int, config: ReadConfig) -> Reading | Refused | Heading:
    try:
        with open(descriptor, "rb") as file:
            # At most one byte more than allowed: that shows a file that grew after the parent measured it.
            data = file.read(min(os.fstat(descriptor).st_size, config.limits.file_bytes + 1))
        return read_heading(data, config.limits) if wish == HEADING else read(data, config)
    except MemoryError:
        return Refused(Reason.MEMORY_LIMIT)
    except OSError:
        return Refused(Reason.UNREADABLE_IMAGE, "OSError")


def _silence() -> None:
    """Nothing that a library says is kept: messages quote values of the file."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    sys.excepthook = lambda *_: None
    pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE


def _confine(limits: Limits) -> bool:
    """Give up rights for good. Returns whether the network is out of reach."""
    cv2.setNumThreads(1)  # threads cost address space, and no new ones can be had below
    for syntax in codecs.PREFERENCE:
        codecs.decoder_for(syntax)  # imports now what decoding would import later
    sys.setrecursionlimit(_RECURSION)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold a patient's pixels
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    cut = libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    return cut


def _allow_seconds(seconds: int) -> None:
    """Move the processor limit ahead of what is used already; past it the kernel ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def _receive_text(parent: socket.socket) -> bytes:
    """One length-prefixed message of the parent."""
    length = int.from_bytes(_exactly(parent, 4), "little")
    return _exactly(parent, length)


def _exactly(parent: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = parent.recv(length - len(parts))
        if not part:
            raise SystemExit(0)
        parts += part
    return bytes(parts)


def _receive_file(parent: socket.socket) -> tuple[bytes, int] | None:
    """(what is wanted, descriptor) of the next file; None when the parent has closed the socket."""
    message, ancillary, _, _ = parent.recvmsg(1, socket.CMSG_SPACE(array.array("i").itemsize))
    if not message:
        return None
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    return message, descriptors[0]


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        os._exit(0)
