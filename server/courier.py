"""How asks reach sites: what the run needs of a transport. Flower's is in ``server/app.py``; tests bring their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from strategies.messages import Answer, Ask


@dataclass(frozen=True)
class Letter:
    """An ask and the node that carries it. One node may carry several sites' (a simulation on few nodes)."""

    node: int
    ask: Ask


class NotEnoughSites(RuntimeError):
    """Fewer sites than the plan needs."""


class Courier(Protocol):
    """A transport."""

    def nodes(self, least: int, seconds: float) -> list[int]:
        """Nodes that are there, after waiting up to ``seconds`` for ``least`` of them.

        Raises:
            NotEnoughSites: they did not come.
        """

    def exchange(
        self, letters: Sequence[Letter], seconds: float, on_answer: Callable[[Letter, Answer], None]
    ) -> list[Answer]:
        """Answers in the order of ``letters``, within ``seconds``; a site that did not answer has a refusal with
        ``Code.TIMEOUT`` or ``Code.LOST``. ``on_answer`` is called as each arrives."""
