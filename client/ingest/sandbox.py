"""Reads DICOM files in a child process that may die, hang, eat memory or turn hostile without harm to the
site.

The child is started once and used for many files, since starting costs half a second and a file some
milliseconds; it is killed and replaced when it breaks a limit. The parent opens the file and hands over the
descriptor: the child never learns a path. Linux only (descriptor passing, address-space limits, memfd).

A process boundary with resource limits is not a defence against a hole in the kernel; where that matters,
run the ingest in a virtual machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from client.ingest.codes import Reason
from client.ingest.reading import Heading, ReadConfig, Reading, Refused
from client.ingest.wire import HEADING, IMAGE, LENGTHS, WireError, from_wire, lengths
from models.config import to_plain

_ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 60.0
_PATIENCE = 10.0
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")


class SandboxError(RuntimeError):
    """The child cannot be started at all: an installation at fault, not a file."""


class Sandbox:
    """One reading child. Not for use by several threads at once: give each its own.

    ``replaced`` counts the children that had to be killed or died; ``network_cut`` tells whether the
    running child is without a network.
    """

    def __init__(self, config: ReadConfig | None = None) -> None:
        self.config = config or ReadConfig()
        self.replaced = 0
        self.network_cut = False
        self._child: _Child | None = None
        self._files = 0

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def read(self, item: Path | str | bytes) -> Reading | Refused:
        """Read one file, given by path or as bytes.

        Whatever the file does, the answer is a :class:`Reading` or a :class:`Refused`.

        Raises:
            SandboxError: if no child can be started.
        """
        return self._asked(item, IMAGE)  # type: ignore[return-value]

    def heading(self, item: Path | str | bytes) -> Heading | Refused:
        """Like :meth:`read`, for the header alone."""
        return self._asked(item, HEADING)  # type: ignore[return-value]

    def _asked(self, item: Path | str | bytes, wish: bytes) -> Reading | Refused | Heading:
        opened = self._open(item)
        if isinstance(opened, Refused):
            return opened
        try:
            return self._read_open(opened, wish)
        finally:
            os.close(opened)

    def peak_memory(self) -> tuple[int, int]:
        """(resident, address space) peaks of the running child in bytes; zeros without one."""
        if self._child is None:
            return 0, 0
        return self._child.peak_memory()

    @property
    def pid(self) -> int | None:
        """Process id of the running child."""
        return None if self._child is None else self._child.process.pid

    def _open(self, item: Path | str | bytes) -> int | Refused:
        if isinstance(item, bytes):
            if len(item) > self.config.limits.file_bytes:
                return Refused(Reason.TOO_LARGE, "file")
            descriptor = os.memfd_create("item", os.MFD_CLOEXEC)
            with open(descriptor, "wb", closefd=False) as file:
                file.write(item)
            os.lseek(descriptor, 0, os.SEEK_SET)
            return descriptor
        try:
            # Without O_NONBLOCK a named pipe would hold us up for ever.
            descriptor = os.open(item, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return Refused(Reason.MISSING_FILE)
        except (OSError, ValueError) as error:
            return Refused(Reason.UNREADABLE_IMAGE, type(error).__name__)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            return Refused(Reason.NOT_DICOM, "not a file")
        if status.st_size > self.config.limits.file_bytes:
            os.close(descriptor)
            return Refused(Reason.TOO_LARGE, "file")
        return descriptor

    def _read_open(self, descriptor: int, wish: bytes) -> Reading | Refused | Heading:
        child = self._ready_child()
        self._files += 1
        try:
            result = child.ask(descriptor, wish, self.config.limits.wall_seconds)
        except TimeoutError:
            self._replace()
            return Refused(Reason.TIME_LIMIT, "wall")
        except (WireError, OSError, EOFError) as error:
            child.process.kill() if isinstance(error, WireError) else None
            reason, note = child.cause_of_death()
            self._replace()
            return Refused(reason, "wire" if isinstance(error, WireError) else note)
        if not isinstance(result, (Refused, Heading if wish == HEADING else Reading)):
            self._replace()
            return Refused(Reason.CRASHED, "wire")
        if isinstance(result, Refused) and result.reason is Reason.MEMORY_LIMIT:
            self._replace()  # it lives, but how much it still can allocate is anyone's guess
        elif self._files >= self.config.limits.files_per_child:
            self._retire()
        return result

    def _ready_child(self) -> _Child:
        # A child that died between two files (the kernel's out-of-memory killer picks at will) is no file's
        # fault.
        if self._child is not None and self._child.process.poll() is not None:
            self._replace()
        if self._child is None:
            self._child = _Child(self.config)
            self._files = 0
        self.network_cut = self._child.wait_ready()
        return self._child

    def _replace(self) -> None:
        self.replaced += 1
        self._retire()

    def _retire(self) -> None:
        """Kill the child and start the next one at once, so that its start-up overlaps with other work."""
        self.close()
        self._child = _Child(self.config)
        self._files = 0


class _Child:
    """The process and our end of its socket."""

    def __init__(self, config: ReadConfig) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket = ours
        # A bare environment: no secret of the site, no path that could shadow a module, one thread per
        # library.
        environment = {k: os.environ[k] for k in _KEPT_VARIABLES if k in os.environ}
        environment |= {"PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "MALLOC_ARENA_MAX": "1"}
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-m", "client.ingest.child", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=environment,
                cwd="/",
                start_new_session=True,  # Ctrl-C goes to the parent alone
            )
        text = json.dumps(to_plain(config)).encode()
        self._ready: bool | None = None
        with contextlib.suppress(OSError):  # a child that is dead already shows when it is waited for
            ours.sendall(len(text).to_bytes(4, "little") + text)

    def wait_ready(self) -> bool:
        """Wait until the child can take a file; returns whether its network is cut.

        Raises:
            SandboxError
        """
        if self._ready is None:
            try:
                text, _ = self._receive(_Deadline(_START_SECONDS, self.process.pid))
                self._ready = bool(json.loads(text)["network_cut"])
            except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
                self.kill()
                raise SandboxError(
                    f"the reading process did not start ({type(error).__name__}, exit status "
                    f"{self.process.returncode}); run `python -m client.ingest.child` by hand to see why, "
                    "and check that memory_bytes leaves room for the decoders"
                ) from None
        return self._ready

    def ask(self, descriptor: int, wish: bytes, seconds: float) -> Reading | Refused | Heading:
        """Hand over one open file and wait for the result.

        Raises:
            TimeoutError, EOFError, OSError, WireError
        """
        deadline = _Deadline(seconds, self.process.pid)
        self._socket.settimeout(seconds)
        socket.send_fds(self._socket, [wish], [descriptor])
        text, pixels = self._receive(deadline)
        return from_wire(text, pixels)

    def _receive(self, deadline: _Deadline) -> tuple[bytes, np.ndarray]:
        text_length, pixel_length = lengths(bytes(self._exactly(LENGTHS.size, deadline)))
        text = bytes(self._exactly(text_length, deadline))
        return text, self._exactly(pixel_length, deadline)

    def _exactly(self, length: int, deadline: _Deadline) -> np.ndarray:
        buffer = np.empty(length, np.uint8)
        view, filled = memoryview(buffer), 0
        while filled < length:
            self._socket.settimeout(deadline.left())
            try:
                count = self._socket.recv_into(view[filled:])
            except TimeoutError:
                continue  # the deadline itself decides what that means
            if not count:
                raise EOFError
            filled += count
        return buffer

    def cause_of_death(self) -> tuple[Reason, str]:
        """Reason code of a child whose socket has closed."""
        try:
            status = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return Reason.CRASHED, "closed"
        if status == -signal.SIGXCPU:
            return Reason.TIME_LIMIT, "processor"
        return Reason.CRASHED, signal.Signals(-status).name if status < 0 else f"exit {status}"

    def peak_memory(self) -> tuple[int, int]:
        try:
            text = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return 0, 0
        found = dict(line.split(":", 1) for line in text.splitlines() if line.startswith(("VmHWM", "VmPeak")))
        resident, space = (int(found.get(key, "0 kB").split()[0]) * 1024 for key in ("VmHWM", "VmPeak"))
        return resident, space

    def kill(self) -> None:
        self._socket.close()
        self.process.kill()
        self.process.wait()


class _Deadline:
    """Wall time for one answer.

    On an overloaded machine a good file can take many times its usual time, so a child that is computing,
    or waiting for the disk, when its time is up gets more, up to ``_PATIENCE`` times as much; what it
    computes meanwhile counts against its processor limit. A child that sleeps or is stopped gets none.
    """

    def __init__(self, seconds: float, pid: int) -> None:
        self._seconds = seconds
        self._pid = pid
        self._soft = time.monotonic() + seconds
        self._hard = time.monotonic() + seconds * _PATIENCE

    def left(self) -> float:
        """Seconds to wait for now, above 0.

        Raises:
            TimeoutError
        """
        now = time.monotonic()
        if now >= self._soft:
            if now >= self._hard or not self._at_work():
                raise TimeoutError
            self._soft = min(now + self._seconds, self._hard)
        return max(self._soft - now, 0.001)

    def _at_work(self) -> bool:
        try:
            text = Path(f"/proc/{self._pid}/stat").read_text()
        except OSError:
            return False
        return text.rpartition(")")[2].split()[0] in ("R", "D")
