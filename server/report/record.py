"""The record of a run: what went wrong, its configuration and versions, how to repeat and cite it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import yaml

from server.report.html import DASH, Markup, details, join, table, tag, text
from server.rundata import RunData

EVENTS_SHOWN = 200
OPEN_LINES = 150
"""A configuration of up to so many lines is shown at once."""


def events(run: RunData) -> Markup:
    """What the guard refused, who was late, what failed: counts, then each."""
    if not run.events:
        return tag("p", "No refusal, timeout or failure was recorded.")
    kinds = Counter(str(e.get("event", "unnamed")) for e in run.events)
    places = Counter((str(e.get("event", "unnamed")), str(e.get("site") or DASH)) for e in run.events)
    summary = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
    rows = [
        [
            *(_shown(e.get(k)) for k in ("round", "event", "site", "code", "text")),
            _shown(e.get("time"))[:19].replace("T", " "),
        ]
        for e in run.events[-EVENTS_SHOWN:]
    ]
    caption = f"{len(run.events)} events: {summary}."
    if len(run.events) > EVENTS_SHOWN:
        caption += f" The last {EVENTS_SHOWN} are listed; events.jsonl holds all."
    each = table(
        ["round", "event", "site", "code", "what happened", "time"],
        rows,
        caption,
        ["num", "", "", "", "", "ci"],
    )
    if len(run.events) <= 12:
        return each
    head = ["event", "site", "times"]
    counts = table(head, [[k, s, str(n)] for (k, s), n in places.most_common(40)], "Events by site.", ["", "", "num"])
    return join([tag("p", caption), counts, details("Every event", each)])


def _shown(value: Any) -> str:
    return DASH if value is None or value == "" else str(value)


def reproduce(run: RunData) -> Markup:
    """The command that repeats the run, and the words that cite it."""
    version = _versions(run).get("fedcxr")
    command = run.run.get("command")
    if isinstance(command, list):
        command = " ".join(map(str, command))
    command = command or "make run CONFIG=run-config.yaml DATA=<folder of the images>"
    digest = run.run.get("config_hash")
    lead = (
        "Save the configuration below as run-config.yaml; DATA names the images, a phantom run needs none. "
        "The same configuration, data and versions give the same numbers"
    )
    lead += f": the new run.yaml must state the configuration hash {str(digest)[:12]}…" if digest else "."
    name = f"fedcxr {version}" if version else "fedcxr"
    when = str(run.run.get("finished") or run.run.get("started") or "")[:10]
    parts = [f"{name}: federated training of chest X-ray foundation models. Run {run.id}"]
    parts += [f"configuration {digest}"] if digest else []
    parts += [when] if when else []
    return join(
        [
            tag("p", lead),
            tag("pre", command),
            tag("p", "To cite this run:"),
            tag("pre", ", ".join(parts) + "."),
        ]
    )


def configuration(run: RunData) -> Markup:
    """Every effective value, then the versions."""
    config = run.run.get("config")
    if not isinstance(config, dict) or not config:
        made = tag("p", "The configuration was not recorded.")
    else:
        shown = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100)
        lines = shown.count("\n")
        made = details(f"Every effective value ({lines} lines of YAML)", tag("pre", shown), opened=lines <= OPEN_LINES)
    rows = [[name, version] for name, version in _versions(run).items()]
    rows += [["code", str(run.run["code_hash"])]] if run.run.get("code_hash") else []
    listed = table(["package", "version"], rows, "Versions.") if rows else ""
    if len(rows) > 12:
        listed = details(f"Versions of {len(rows)} packages", listed)
    return join([made, listed])


def _versions(run: RunData) -> dict[str, str]:
    given = run.run.get("versions")
    return {str(k): str(v) for k, v in given.items()} if isinstance(given, dict) else {}


def footer(run: RunData) -> list[Markup]:
    """What of the run folder could not be read, and how intervals were made."""
    parts = [
        tag(
            "p",
            "Intervals: 95 % percentile bootstrap over patients, each patient with all images. They hold for "
            "one model on one set of patients, not for the chance of another training run.",
        )
    ]
    if run.problems:
        parts.insert(0, tag("p", text("Not read: " + "; ".join(run.problems) + ".")))
    return parts
