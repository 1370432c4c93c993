"""An in-process Flower grid: the real ServerApp code and the real ClientApp, no Ray, no network, milliseconds a round."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

Carry = Callable[[Message, Context], Message]


class InProcessGrid(Grid):
    """``nodes`` nodes that call ``client`` with their own context; each node does one message at a time."""

    def __init__(
        self, client: Carry, nodes: int, run_config: dict | None = None, node_configs: list[dict] | None = None
    ):
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self.client = client
        self.sent: list[Message] = []
        self.contexts = {
            100 + i: Context(1, 100 + i, (node_configs or [{}] * nodes)[i], RecordDict(), run_config or {})
            for i in range(nodes)
        }
        self._count = itertools.count(1)
        self._replies: dict[str, Message] = {}
        self._lock = threading.Lock()
        self._workers = {node: ThreadPoolExecutor(1) for node in self.contexts}

    def set_run(self, run) -> None:
        raise AssertionError("not used")

    @property
    def run(self):
        raise AssertionError("not used")

    def create_message(self, *args, **kwargs):
        raise AssertionError("not used")

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            message_id = f"m{next(self._count)}"
            message.metadata.__dict__["_message_id"] = message_id
            self.sent.append(message)
            self._workers[message.metadata.dst_node_id].submit(self._work, message)
            ids.append(message_id)
        return ids

    def _work(self, message: Message) -> None:
        try:
            reply = self.client(message, self.contexts[message.metadata.dst_node_id])
        except Exception as error:
            reply = Message(Error(code=2, reason=str(error)), reply_to=message)
        with self._lock:
            self._replies[message.metadata.message_id] = reply

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        with self._lock:
            return [self._replies.pop(i) for i in list(message_ids) if i in self._replies]

    def send_and_receive(self, messages, *, timeout=None):
        raise AssertionError("the courier has a deadline of its own")
