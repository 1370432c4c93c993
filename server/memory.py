"""Peak memory of this process and everything it started."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil


class PeakMemory:
    """Samples the proportional set size (shared pages are split among their users) of the process tree.

    Reading it costs some milliseconds a process, hence every two seconds and no oftener.
    """

    def __init__(self, every: float = 2.0) -> None:
        self.mb = 0.0
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            self._sample()

    def _sample(self) -> None:
        me = psutil.Process()
        total = sum(_memory(process) for process in [me, *me.children(recursive=True)])
        self.mb = max(self.mb, round(total / 1e6, 1))


def _memory(process: psutil.Process) -> int:
    try:
        try:
            return process.memory_full_info().pss
        except (psutil.AccessDenied, AttributeError):
            return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0
