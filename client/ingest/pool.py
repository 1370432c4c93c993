"""Worker processes for files that are not trusted: ordered answers, and one that dies takes one item with it.

Main process and workers speak JSON and raw bytes over pipes. Nothing is pickled, so a worker that a hostile
file took over cannot make the main process run code. Workers are started from their module, not as copies of
the caller: they load what they need and nothing of the caller's.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import resource
import selectors
import signal
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from client.ingest.codes import Reason

Task = dict[str, Any]
Answer = dict[str, Any]
Ready = dict[int, tuple[Answer, memoryview]]

_AHEAD = 6
"""Tasks that wait in a worker's pipe, so that it never idles; few and small enough never to fill the pipe."""
_WINDOW = 32
"""Answers per worker that may wait for a slower one before them: bounds the memory."""
_LARGEST = 1 << 30
_START_SECONDS = 120.0
_PIPE_BYTES = 1 << 20
_LENGTHS = struct.Struct(">II")
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from client.ingest.pool import serve; serve(*sys.argv[2:])"
)


class PoolError(RuntimeError):
    """Worker processes cannot be started. The text says what to do."""


class Pool:
    """Calls ``function`` (``"package.module:name"``) on tasks in worker processes.

    ``function(task) -> (answer, data)``: a JSON-ready dict each way, and an array or None. A worker that
    dies, or takes longer than ``seconds`` for one task, is replaced, and the task is answered with
    ``{"code": ...}`` (``crashed``, ``time_limit``). ``memory_bytes`` limits a worker's address space; past
    it, ``function`` meets MemoryError.

    Raises:
        PoolError: from ``map``, when workers cannot start: that says nothing about the files.
    """

    def __init__(self, function: str, workers: int, seconds: float, memory_bytes: int) -> None:
        if workers < 1:
            raise ValueError(f"workers: {workers}; at least 1")
        self._function = function
        self._seconds = seconds
        self._memory = memory_bytes
        self._selector = selectors.DefaultSelector()
        self._workers: list[_Worker] = []
        for _ in range(workers):
            self._start()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers."""
        while self._workers:
            self._end(self._workers[0])
        self._selector.close()

    def map(self, tasks: Sequence[Task]) -> Iterator[tuple[Answer, memoryview]]:
        """(answer, data) of every task, in the order of ``tasks``."""
        todo = deque(range(len(tasks)))
        ready: Ready = {}
        following = 0
        while following < len(tasks):
            limit = following + _WINDOW * len(self._workers)
            for worker in self._workers:
                while todo and todo[0] < limit and len(worker.pending) < _AHEAD:
                    worker.give(tasks[todo[0]], todo.popleft())
            for key, _ in self._selector.select(min(1.0, self._seconds / 4)):
                self._collect(key.data, ready, todo)
            self._stop_late(ready, todo)
            while following in ready:
                yield ready.pop(following)
                following += 1

    def _collect(self, worker: _Worker, ready: Ready, todo: deque[int]) -> None:
        """Take all answers that are there."""
        try:
            while (answer := worker.take()) is not None:
                ready[worker.pending.popleft()] = answer
        except _DeadError:
            worker.check_started(self._function)
            self._replace(worker, Reason.CRASHED, ready, todo)

    def _stop_late(self, ready: Ready, todo: deque[int]) -> None:
        now = time.monotonic()
        for worker in list(self._workers):
            if not worker.started and now - worker.since > _START_SECONDS:
                worker.check_started(self._function)
            if worker.started and worker.pending and now - worker.since > self._seconds:
                self._replace(worker, Reason.TIME_LIMIT, ready, todo)

    def _replace(self, worker: _Worker, code: Reason, ready: Ready, todo: deque[int]) -> None:
        """Answer the task in hand with ``code``; the others go back into the queue, which stays in order."""
        if worker.pending:
            ready[worker.pending.popleft()] = ({"code": code.value}, memoryview(b""))
        back = sorted([*worker.pending, *todo])
        todo.clear()
        todo.extend(back)
        self._end(worker)
        self._start()

    def _start(self) -> None:
        worker = _Worker(self._function, self._memory)
        self._workers.append(worker)
        self._selector.register(worker.answers, selectors.EVENT_READ, worker)

    def _end(self, worker: _Worker) -> None:
        self._selector.unregister(worker.answers)
        self._workers.remove(worker)
        worker.end()


class _DeadError(Exception):
    """The worker is gone, or speaks nonsense."""


class _Worker:
    """One process. ``pending`` are its tasks, the first in hand; that one began at ``since`` or later."""

    def __init__(self, function: str, memory_bytes: int) -> None:
        tasks, self._tasks = os.pipe()
        self.answers, answers = os.pipe()
        fcntl.fcntl(answers, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        os.set_blocking(self.answers, False)
        arguments = (json.dumps(sys.path), function, str(memory_bytes), str(tasks), str(answers))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, *arguments],
            pass_fds=(tasks, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # a traceback would name the file
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        os.close(tasks)
        os.close(answers)
        self.pending: deque[int] = deque()
        self.since = time.monotonic()
        self.started = False
        self._expect(_LENGTHS.size)

    def check_started(self, function: str) -> None:
        """Raise PoolError for a worker that never said it was ready."""
        if not self.started:
            raise PoolError(
                f"a worker process for {function} did not start; "
                f"try python -c 'import {function.split(':')[0]}', and see that there is memory left"
            )

    def give(self, task: Task, number: int) -> None:
        """Queue one task. A dead worker is noticed when its answers are read."""
        if not self.pending:
            self.since = time.monotonic()
        self.pending.append(number)
        with contextlib.suppress(BrokenPipeError):
            os.write(self._tasks, json.dumps(task).encode() + b"\n")

    def take(self) -> tuple[Answer, memoryview] | None:
        """The next answer; None when it is not all there yet.

        Raises:
            _DeadError: there will be none.
        """
        while True:
            try:
                count = os.readv(self.answers, [self._view[self._got :]])
            except BlockingIOError:
                return None
            if not count:
                raise _DeadError
            self.since = time.monotonic()
            self._got += count
            if self._got < len(self._view):
                continue
            if self._header is None:
                self._header, data = _LENGTHS.unpack(self._view)
                if self._header + data > _LARGEST or not self._header:
                    raise _DeadError
                self._expect(self._header + data, self._header)
                continue
            message, length = self._view, self._header
            self._expect(_LENGTHS.size)
            try:
                answer = json.loads(bytes(message[:length]))
            except ValueError:
                raise _DeadError from None
            if not self.started:
                self.started = True  # the first message only says that the worker is ready
                continue
            if not isinstance(answer, dict) or not self.pending:
                raise _DeadError
            return answer, message[length:]

    def end(self) -> None:
        """Kill the process and close the pipes."""
        self._process.kill()
        self._process.wait()
        os.close(self._tasks)
        os.close(self.answers)

    def _expect(self, count: int, header: int | None = None) -> None:
        self._view = memoryview(bytearray(count))
        self._got = 0
        self._header = header


def serve(function: str, memory_bytes: str, tasks: str, answers: str) -> None:
    """A worker's whole life: read tasks, answer them, end when the main process closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    module, name = function.split(":")
    call = getattr(importlib.import_module(module), name)
    resource.setrlimit(resource.RLIMIT_AS, (int(memory_bytes), int(memory_bytes)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold pixels of a patient
    _send(int(answers), {}, b"")
    with open(int(tasks), "rb") as lines:
        for line in lines:
            answer, data = call(json.loads(line))
            _send(int(answers), answer, b"" if data is None else data)


def _send(handle: int, answer: Answer, data: Any) -> None:
    header = json.dumps(answer).encode()
    body = memoryview(data).cast("B")
    parts = [_LENGTHS.pack(len(header), len(body)) + header, body]
    left = sum(len(part) for part in parts)
    count = os.writev(handle, parts)
    if count == left:
        return
    rest = memoryview(b"".join(parts))
    while count < left:
        count += os.write(handle, rest[count:])
