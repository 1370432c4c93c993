"""Several reading children side by side, with answers in the order of the questions."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from client.ingest.reading import ReadConfig
from client.ingest.sandbox import Sandbox

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_AHEAD = 8
"""Answers per child that may wait for a slower one before them: bounds the memory at some images a child."""


class Readers:
    """``count`` children, each driven by a thread of its own; the threads only wait and copy.

    Raises:
        SandboxError: from ``each``, when no child can be started.
    """

    def __init__(self, config: ReadConfig, count: int) -> None:
        if count < 1:
            raise ValueError(f"count: {count}; at least 1 child is needed")
        self.sandboxes = [Sandbox(config) for _ in range(count)]
        self._free: queue.SimpleQueue[Sandbox] = queue.SimpleQueue()
        for sandbox in self.sandboxes:
            self._free.put(sandbox)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="reader")

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all children; what they were asked is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for sandbox in self.sandboxes:
            sandbox.close()
        self._threads.shutdown(wait=True)
        for sandbox in self.sandboxes:  # one that was between two files may have started another child
            sandbox.close()

    @property
    def replaced(self) -> int:
        """Children that had to be killed or died."""
        return sum(sandbox.replaced for sandbox in self.sandboxes)

    def each(
        self, items: Iterable[Item], ask: Callable[[Sandbox, Item], Answer], wanted: Callable[[Item], bool]
    ) -> Iterator[tuple[Item, Answer | None]]:
        """(item, answer) in the order of ``items``, which are taken as they are needed; ``None`` for an item that is
        not ``wanted``.
        """
        waiting: deque[tuple[Item, Future[Answer] | None]] = deque()
        asked = 0
        for item in items:
            future = self._threads.submit(self._call, ask, item) if wanted(item) else None
            asked += future is not None
            waiting.append((item, future))
            while waiting and (waiting[0][1] is None or asked >= _AHEAD * len(self.sandboxes)):
                item, future = waiting.popleft()
                asked -= future is not None
                yield item, future.result() if future else None
        for item, future in waiting:
            yield item, future.result() if future else None

    def _call(self, ask: Callable[[Sandbox, Item], Answer], item: Item) -> Answer:
        sandbox = self._free.get()
        try:
            return ask(sandbox, item)
        finally:
            self._free.put(sandbox)
