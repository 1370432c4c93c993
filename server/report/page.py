"""Put the parts of the results page together and write it."""

from __future__ import annotations

import os
from pathlib import Path

from server.report import curves, headline, record, scores
from server.report.cost import cost
from server.report.html import Absent, Markup, join, tag, text
from server.report.questions import questions
from server.report.robustness import robustness
from server.report.style import CSS
from server.rundata import RunData, read_run

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""No script runs and nothing is fetched, whatever a name or an error text of the run holds."""


def write_report(run_folder: Path) -> Path:
    """Write ``report.html`` into ``run_folder`` from what it holds; a part that is missing is said to be.

    The file is written whole or not at all. Raises FileNotFoundError if there is no such folder.
    """
    run = read_run(run_folder)
    target = run.path / "report.html"
    partial = target.with_suffix(".html.part")
    partial.write_text(render(run), encoding="utf-8")
    os.replace(partial, target)
    return target


def render(run: RunData) -> str:
    """The page as text; equal run folders give equal pages."""
    parts = [
        ("curves", "Rounds", curves.rounds(run)),
        ("findings", "Findings", scores.findings(run)),
        ("questions", "Questions on reports", questions(run)),
        ("sites", "Sites", scores.sites(run)),
        ("gains", "Who gained, who lost", scores.gains(run)),
        ("calibration", "Calibration", scores.calibration(run)),
        ("robustness", "Robustness", robustness(run)),
        ("events", "Guard and events", record.events(run)),
        ("cost", "Cost", cost(run)),
        ("reproduce", "Reproduce and cite", record.reproduce(run)),
        ("configuration", "Configuration", record.configuration(run)),
    ]
    if run.status == "failed":  # what went wrong comes first
        parts.sort(key=lambda part: part[0] != "events")
    parts = [part for part in parts if part[2]]  # empty: not asked for
    missing = [(title, inside) for _, title, inside in parts if isinstance(inside, Absent)]
    parts = [part for part in parts if not isinstance(part[2], Absent)]
    if missing:
        told = [tag("li", tag("b", title), ": ", inside) for title, inside in missing]
        parts.append(("missing", "Not recorded", tag("ul", *told)))
    links = (tag("a", title, href=f"#{name}") for name, title, _ in parts)
    contents = tag("nav", *links, aria_label="contents")
    body = join(
        [
            tag("header", headline.head(run), contents),
            tag("main", *(_section(*part) for part in parts)),
            tag("footer", *record.footer(run)),
        ]
    )
    return document(f"{run.name}: results", body)


def document(title: str, body: Markup) -> str:
    """A whole page that needs nothing else and runs nothing."""
    meta = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
    )
    top = f"<head>{meta}{tag('title', title)}<style>{CSS}</style></head>"
    return f'<!doctype html>\n<html lang="en">{top}<body>{body}</body></html>\n'


def _section(name: str, title: str, inside: Markup) -> Markup:
    heading = tag("h2", text(title), id=f"{name}-title")
    return tag("section", heading, inside, id=name, aria_labelledby=f"{name}-title")
