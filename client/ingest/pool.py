"""Worker processes for files that are not trusted: ordered answers, and one that dies takes one item with it.

Main process and workers speak JSON and raw bytes over pipes. Nothing is pickled, so a worker that a hostile
file took over cannot make the main process run code.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import resource
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from client.ingest.codes import Reason

Task = dict[str, Any]
Answer = dict[str, Any]

_AHEAD = 6
"""Tasks that wait in a worker's pipe, so that it never idles; few and small enough never to fill the pipe."""
_WINDOW = 32
"""Answers per worker that may wait for a slower one before them: bounds the memory."""
_LARGEST_ANSWER = 1 << 30


class Pool:
    """Calls ``function`` (``"package.module:name"``) on tasks in worker processes.

    ``function(task) -> (answer, data)``: a JSON-ready dict each way, and an array or None. A worker that
    dies, or takes longer than ``seconds`` for one task, is replaced, and the task is answered with ``{"code":
    ...}`` (``crashed``, ``time_limit``). ``memory_bytes`` limits a worker's address space; past it,
    ``function`` meets MemoryError.
    """

    def __init__(self, function: str, workers: int, seconds: float, memory_bytes: int) -> None:
        if workers < 1:
            raise ValueError(f"workers: {workers}; at least 1")
        self._function = function
        self._seconds = seconds
        self._memory = memory_bytes
        self._workers = [_Worker(function, memory_bytes) for _ in range(workers)]

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.end()

    def map(self, tasks: Sequence[Task]) -> Iterator[tuple[Answer, memoryview]]:
        """(answer, data) of every task, in the order of ``tasks``."""
        todo = deque(range(len(tasks)))
        ready: dict[int, tuple[Answer, memoryview]] = {}
        following = 0
        while following < len(tasks):
            limit = following + _WINDOW * len(self._workers)
            for worker in self._workers:
                while (
                    todo and len(worker.pending) < _AHEAD and todo[0] < limit and worker.give(tasks, todo[0])
                ):
                    todo.popleft()
            for worker in self._answered():
                for _ in range(_AHEAD):  # all that is there, in one go
                    if worker.pending and worker.answers.poll():
                        number = worker.pending[0]
                        answer = worker.take()
                        if answer is None:
                            self._replace(worker, Reason.CRASHED, ready, todo)
                            break
                        ready[number] = answer
            self._stop_late(ready, todo)
            while following in ready:
                yield ready.pop(following)
                following += 1

    def _answered(self) -> list[_Worker]:
        busy = {worker.answers: worker for worker in self._workers if worker.pending}
        return [busy[connection] for connection in wait(list(busy), timeout=min(1.0, self._seconds / 4))]

    def _stop_late(self, ready: dict[int, tuple[Answer, memoryview]], todo: deque[int]) -> None:
        now = time.monotonic()
        for worker in self._workers:
            # An answer that waits to be read means that we are the slow ones.
            if worker.pending and now - worker.since > self._seconds and not worker.answers.poll():
                self._replace(worker, Reason.TIME_LIMIT, ready, todo)

    def _replace(
        self, worker: _Worker, code: Reason, ready: dict[int, tuple[Answer, memoryview]], todo: deque[int]
    ) -> None:
        """Answer the task in hand with ``code``; the others go back to the front of the queue."""
        if worker.pending:
            ready[worker.pending.popleft()] = ({"code": code.value}, memoryview(b""))
            todo.extendleft(reversed(worker.pending))
            # Another worker may have given back later tasks before: the queue stays in order.
            ordered = sorted(todo)
            todo.clear()
            todo.extend(ordered)
        worker.end()
        self._workers[self._workers.index(worker)] = _Worker(self._function, self._memory)


class _Worker:
    def __init__(self, function: str, memory_bytes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.answers, answers = context.Pipe(duplex=False)
        tasks, self._tasks = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_serve, args=(function, memory_bytes, tasks, answers), daemon=True, name="ingest"
        )
        self._process.start()
        tasks.close()
        answers.close()
        self.pending: deque[int] = deque()
        self.since = time.monotonic()

    def give(self, tasks: Sequence[Task], number: int) -> bool:
        """Queue one task; False when the worker is dead (its pipe says so when it is read)."""
        if not self.pending:
            self.since = time.monotonic()
        self.pending.append(number)
        try:
            self._tasks.send_bytes(json.dumps(tasks[number]).encode())
        except OSError:
            if len(self.pending) > 1:
                self.pending.pop()
                return False
        return True

    def take(self) -> tuple[Answer, memoryview] | None:
        """The next answer; None when the worker died or speaks nonsense."""
        try:
            message = self.answers.recv_bytes(_LARGEST_ANSWER)
            length = int.from_bytes(message[:4], "big")
            answer = json.loads(message[4 : 4 + length])
        except (EOFError, OSError, ValueError):
            return None
        self.pending.popleft()
        self.since = time.monotonic()
        return answer, memoryview(message)[4 + length :]

    def end(self) -> None:
        """Kill the process and close the pipes."""
        self._process.kill()
        self._process.join()
        self._tasks.close()
        self.answers.close()


def _serve(function: str, memory_bytes: int, tasks: Connection, answers: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends us by closing the pipe
    module, name = function.split(":")
    call = getattr(importlib.import_module(module), name)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold pixels of a patient
    while True:
        try:
            task = json.loads(tasks.recv_bytes())
        except EOFError:
            return
        answer, data = call(task)
        header = json.dumps(answer).encode()
        parts = [len(header).to_bytes(4, "big"), header]
        if data is not None:
            parts.append(memoryview(data).cast("B"))
        answers.send_bytes(b"".join(parts))
