"""The ServerApp; the only server file that knows Flower. It carries asks to nodes and answers back."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from flwr.app import Context, Message, MessageType
from flwr.serverapp import Grid, ServerApp

from server.courier import Letter, NotEnoughSites
from server.folder import RunFolder, new_run_id
from server.memory import PeakMemory
from server.report import write_report
from server.run import Run, RunFailed
from strategies.launch import Launch, launch
from strategies.messages import Answer, Code, Kind, ProtocolError, Refusal
from strategies.records import from_record, to_record

log = logging.getLogger("fedcxr.run")

app = ServerApp()

TYPES = {Kind.HELLO: MessageType.QUERY, Kind.TRAIN: MessageType.TRAIN, Kind.EVALUATE: MessageType.EVALUATE}
SLOWEST_POLL = 1.0


class FlowerCourier:
    """Letters over a Flower grid: own deadline, a time to live per message, replies matched by message id.

    A site that missed a deadline is still busy with that ask (Flower's nodes do one thing at a time). It is not asked
    again until it has answered or the ask has expired; its late answer is dropped.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._late: dict[str, tuple[str, float]] = {}  # message id to (site, when it expires)

    def nodes(self, least: int, seconds: float) -> list[int]:
        deadline, pause = time.monotonic() + seconds, 0.05
        while True:
            found = sorted(self.grid.get_node_ids())
            if len(found) >= least:
                return found
            if time.monotonic() > deadline:
                raise NotEnoughSites(
                    f"{len(found)} of at least {least} sites connected within {seconds:g} s; start the missing ones, or "
                    f"raise federation.wait_seconds, or lower federation.min_sites"
                )
            time.sleep(pause)
            pause = min(2 * pause, SLOWEST_POLL)

    def exchange(
        self, letters: Sequence[Letter], seconds: float, on_answer: Callable[[Letter, Answer], None]
    ) -> list[Answer]:
        self._collect_late()
        busy = {site for site, _ in self._late.values()}
        answers: list[Answer | None] = [
            _no(letter, Code.TIMEOUT, "still busy with an earlier round") if letter.ask.site in busy else None
            for letter in letters
        ]
        # Twice the deadline: within it a late answer still tells us that the site is free again.
        life = 2 * seconds
        waiting = [i for i, answer in enumerate(answers) if answer is None]
        messages = [
            Message(
                to_record(letters[i].ask),
                letters[i].node,
                TYPES[letters[i].ask.kind],
                ttl=life,
                group_id=str(letters[i].ask.round),
            )
            for i in waiting
        ]
        ids = list(self.grid.push_messages(messages)) if messages else []
        open_ids = {}
        for i, message_id in zip(waiting, ids):
            if message_id:
                open_ids[message_id] = i
            else:
                answers[i] = _no(letters[i], Code.LOST, "the message was not taken by the server's link")
        deadline, pause = time.monotonic() + seconds, 0.02
        while open_ids and time.monotonic() < deadline:
            arrived = list(self.grid.pull_messages(list(open_ids)))
            for reply in arrived:
                i = open_ids.pop(reply.metadata.reply_to_message_id, None)
                if i is not None:
                    answers[i] = _answer(reply, letters[i])
                    on_answer(letters[i], answers[i])
            if not arrived:
                time.sleep(pause)
                pause = min(1.5 * pause, SLOWEST_POLL)
            else:
                pause = 0.02
        for message_id, i in open_ids.items():
            self._late[message_id] = (letters[i].ask.site, time.monotonic() + seconds)
            answers[i] = _no(letters[i], Code.TIMEOUT, f"no answer within {seconds:g} s; the round went on without it")
        return [answer for answer in answers if answer is not None]

    def _collect_late(self) -> None:
        if not self._late:
            return
        for reply in self.grid.pull_messages(list(self._late)):
            self._late.pop(reply.metadata.reply_to_message_id, None)
        self._late = {i: (site, end) for i, (site, end) in self._late.items() if end > time.monotonic()}


def _no(letter: Letter, code: Code, text: str) -> Answer:
    return Answer(site=letter.ask.site, refusal=Refusal(code, text))


def _answer(reply: Message, letter: Letter) -> Answer:
    if reply.has_error():
        # Flower's reason holds the text of the remote exception; it is not repeated here.
        return _no(letter, Code.LOST, f"the site's client failed (Flower error {reply.error.code})")
    try:
        answer = from_record(Answer, reply.content)
    except ProtocolError as error:
        return _no(letter, Code.BAD_REQUEST, f"the answer does not follow the contract: {error}")
    if letter.ask.site and answer.refusal is None and answer.site != letter.ask.site:
        return _no(letter, Code.BAD_REQUEST, "the answer names another site than the one asked")
    return answer


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the plan that the run configuration names; the run folder says how it went, also when it fails."""
    _log_to_stdout()
    values = dict(context.run_config)
    resume, wanted = str(values.get("resume", "")), str(values.get("run", ""))
    launched = launch(values)
    path = launched.out / (resume or wanted or new_run_id(launched.plan.name))
    folder = RunFolder.reopen(path, launched.plan) if resume else RunFolder.create(path, launched.plan)
    execute(launched, FlowerCourier(grid), folder, resume=bool(resume))


def execute(launched: Launch, courier: FlowerCourier, folder: RunFolder, resume: bool = False) -> Path:
    """Run and write results and report; a failure is written down before it is raised."""
    log.info("run %s", folder.path)
    with PeakMemory() as memory:
        try:
            summary = Run(launched, courier, folder).execute(resume)
        except Exception as error:
            text = str(error) if isinstance(error, RunFailed | NotEnoughSites | ValueError) else ""
            folder.finish(
                "failed", error=text or f"{type(error).__name__}: see the run's log", peak_memory_mb=memory.mb
            )
            log.error("failed: %s", text or type(error).__name__)
            try:
                write_report(folder.path)
            except Exception:
                log.exception("the report of the failed run could not be written")
            raise
    folder.finish("completed", peak_memory_mb=memory.mb, **summary)
    report = write_report(folder.path)
    log.info("completed; report %s", report)
    return report


def _log_to_stdout() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    root = logging.getLogger("fedcxr")
    root.handlers, root.propagate = [handler], False
    root.setLevel(logging.INFO)
