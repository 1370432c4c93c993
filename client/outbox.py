"""The only door out of a site: checks what leaves against the policy, writes the egress ledger, then lets it go.

The ledger is append-only JSON lines on the site's disk: when, for which run and round, how many bytes, which
components, the digest of the tensors, which metrics. It holds no value of any patient. An answer whose line could not
be written does not leave.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from pathlib import Path

from client.policy import Policy
from models.evaluation.results import MACRO, too_small
from models.model import SITE
from strategies.messages import Answer, Ask, Code, Refusal


class Outbox:
    """One per site. ``send`` returns what may leave: the answer, or a refusal in its place."""

    def __init__(self, ledger: Path, policy: Policy) -> None:
        self.ledger, self.policy = ledger, policy
        ledger.parent.mkdir(parents=True, exist_ok=True)

    def send(self, ask: Ask, answer: Answer) -> Answer:
        refusal = self._why_not(ask, answer)
        if refusal is not None:
            answer = Answer(site=ask.site, refusal=refusal)
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "run": ask.run,
            "phase": ask.phase,
            "round": ask.round,
            "kind": str(ask.kind),
            "cohort": ask.cohort,
            "refusal": str(answer.refusal.code) if answer.refusal else None,
            "components": sorted({name.split("/")[0] for name in answer.tensors}),
            "tensors": len(answer.tensors),
            "bytes": sum(a.nbytes for a in answer.tensors.values()),
            "sha256": _digest(answer),
            "metrics": sorted({row.metric for row in answer.metrics}),
            "facts": sorted(answer.facts),
        }
        # One write call of one line, so that two processes of one site never interleave.
        descriptor = os.open(self.ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, (json.dumps(line) + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return answer

    def _why_not(self, ask: Ask, answer: Answer) -> Refusal | None:
        if answer.refusal is not None:
            return None
        resident = sorted(name for name in answer.tensors if name.startswith(SITE))
        if resident:
            return Refusal(
                Code.POLICY, f"component {resident[0].split('/')[0]!r} lives at this site and does not leave"
            )
        uninvited = {name.split("/")[0] for name in answer.tensors} - set(ask.components)
        if uninvited:
            return Refusal(Code.POLICY, f"component {sorted(uninvited)[0]!r} was not asked for and does not leave")
        megabytes = sum(a.nbytes for a in answer.tensors.values()) / 1e6
        if megabytes > self.policy.max_reply_mb:
            return Refusal(
                Code.POLICY, f"the reply has {megabytes:.1f} MB; this site sends {self.policy.max_reply_mb:g} at most"
            )
        for row in answer.metrics:
            counted = row.positives is not None and row.finding != MACRO
            if counted and too_small(row.positive_patients, row.negative_patients, self.policy.min_cell):
                return Refusal(
                    Code.POLICY, f"metric {row.metric!r} rests on fewer than {self.policy.min_cell} patients"
                )
        return None


def _digest(answer: Answer) -> str | None:
    if not answer.tensors:
        return None
    digest = hashlib.sha256()
    for name in sorted(answer.tensors):
        digest.update(name.encode())
        digest.update(memoryview(answer.tensors[name]).cast("B"))
    return digest.hexdigest()


def one_line(text: str) -> str:
    """Text fit for a refusal: one line, at most 200 characters, without anything that looks like a path."""
    return re.sub(r"(?:/[\w.-]+){2,}", "<path>", " ".join(text.split()))[:200]
