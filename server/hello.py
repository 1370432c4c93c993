"""What a site says of itself when it joins. Its word is not trusted to have the shape it should."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from strategies.messages import Answer
from strategies.virtual import POOLED

NAME = re.compile(r"\w[\w. -]{0,63}")
"""Names stand in file names, checkpoint keys, logs and the report."""


def unsound(answer: Answer, taken: Collection[str], phases: int | None = None) -> str | None:
    """What is wrong with the hello of a site that names itself; None if nothing. ``taken``: names in use; ``phases``:
    how many the plan has."""
    if not NAME.fullmatch(answer.site) or answer.site == POOLED:
        return f"the site's name must be up to 64 letters, digits, '.', '_', ' ' or '-', and not {POOLED!r}"
    if answer.site in taken:
        return f"another node already joined as {answer.site!r}; give every site a name of its own"
    return unsound_facts(answer.facts, phases)


def unsound_facts(facts: dict[str, Any], phases: int | None = None) -> str | None:
    """What is wrong with a hello's counts by split, and by phase of a plan of ``phases``; None if nothing is."""
    if "phases" in facts and not _phases(facts["phases"], phases):
        return "the hello does not count the films of each phase of the plan"
    for split, part in facts.items():
        if split in ("phases", "lora_rank"):  # the latter is looked at with the plan (server/adapters.py)
            continue
        if not isinstance(part, dict) or not all(_count(part.get(key)) for key in ("films", "patients")):
            return f"the hello does not count films and patients of {split[:20]!r}"
        positives = part.get("positives")
        if not isinstance(positives, dict) or not all(n is None or _count(n) for n in positives.values()):
            return f"the hello does not count positives of {split[:20]!r}"
    return None if facts.get("train", {}).get("films") else "the hello names no training films"


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _phases(value: Any, count: int | None) -> bool:
    return (
        isinstance(value, list)
        and (count is None or len(value) == count)
        and all(
            isinstance(part, dict)
            and _count(part.get("films"))
            and isinstance(part.get("taught"), list)
            and isinstance(part.get("why"), str)
            and len(part["why"]) <= 200
            for part in value
        )
    )
