"""The sites that take part in a run, and whether they can teach what its phases need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.teaching import Lessons
from strategies.plan import RunConfig


@dataclass(frozen=True)
class Joined:
    """A site that takes part: the node that carries it, and what it said of its data."""

    name: str
    node: int
    facts: dict[str, Any]

    @property
    def examples(self) -> int:
        return int(self.facts["train"]["films"])

    def in_phase(self, number: int) -> dict[str, Any]:
        """What it said of phase ``number``: ``films`` it trains on (0: none, and ``why``), findings ``taught``."""
        phases = self.facts.get("phases")
        return phases[number] if phases else {"films": self.examples, "taught": [], "why": ""}


def unteachable(plan: RunConfig, sites: Mapping[str, Joined], lessons: Lessons | None) -> str | None:
    """Why a phase of the plan cannot be trained by anybody; None if each can.

    A phase needs somebody with films for it. One that trains on its own answers (self-training) needs true labels
    somewhere besides: in an earlier supervised phase, or at a site that is corrected by them.
    """
    supervised = taught = False
    for number, phase in enumerate(plan.phases):
        said = {name: site.in_phase(number) for name, site in sites.items()}
        able = [name for name, part in said.items() if part["films"]]
        lesson = lessons.why_not(phase) if phase.server and lessons else "no films of its own"
        if not able and lesson:
            reasons = "; ".join(f"{name}: {part.get('why') or 'no films'}" for name, part in said.items())
            return f"phase {phase.name!r}: nobody can train it. {reasons}; server: {lesson}"
        objective = phase.objective.build()
        supervised |= getattr(objective, "supervised", True) or lesson is None
        taught |= any(part["taught"] for part in said.values())
        if not supervised and not taught and getattr(objective, "needs_labels", False):
            return (
                f"phase {phase.name!r}: it learns from labels in the end, and no labelled data is anywhere: no site, and "
                f"no server, has enough labelled patients of both answers to any of {', '.join(objective.cfg.findings)}; "
                f"label some, or train self-supervised alone (ssl_weight 1)"
            )
    return None
