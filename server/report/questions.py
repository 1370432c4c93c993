"""What a text tower answered: report retrieval, and errors told apart, by task, cohort and site."""

from __future__ import annotations

from server.report.curves import MEAN_OF_LOCAL, legend, series
from server.report.html import Markup, count, interval, join, table, tag
from server.rundata import COHORTS, MACRO, QUESTIONS, RunData
from server.svg import Mark, intervals, line_chart, scale, span

NAMES = {
    "recall_at_1": "R@1",
    "recall_at_5": "R@5",
    "recall_at_10": "R@10",
    "mc4": "MC4, strictly",
    "mc4_ties": "MC4, ties shared",
    "mc4_margin": "MC4, margin of cosines",
    "mc4_beats": "Against one error",
}
TASKS = {"abbreviated": "abbreviated to written out", "summary": "findings to impression", MACRO: "mean"}
CHANCE = {"mc4": 0.25, "mc4_ties": 0.25, "mc4_beats": 0.5, "mc4_margin": 0.0}


def questions(run: RunData) -> Markup:
    """Table and drawing of every metric; empty for a run that was not asked."""
    asked = [(m, f) for m in QUESTIONS for f in _kinds(run, m)]
    cells = {(c, m, f): run.overall(c, m, f) for c in COHORTS for m, f in asked}
    cohorts = [c for c in COHORTS if any(cells[c, m, f].value is not None for m, f in asked)]
    if not cohorts:
        return Markup("")
    rows = []
    for metric, kind in asked:
        shown = [cells[c, metric, kind] for c in cohorts]
        if all(cell.value is None for cell in shown):
            continue
        marks = [
            Mark(c, cell.value, cell.low, cell.high, f"{c}: {cell.value:.3f}")
            for c, cell in zip(cohorts, shown)
            if cell.value is not None
        ]
        drawn = "" if metric == "mc4_margin" else intervals(marks, (0.0, 1.0), rule=CHANCE.get(metric), width=200)
        known = next(cell.n for cell in shown if cell.value is not None)
        what = TASKS.get(kind, kind.replace("_", " "))
        whole = metric in ("mc4", "mc4_ties", "mc4_margin")
        label = NAMES[metric] if whole else f"{NAMES[metric]}, {what}"
        rows.append([label, count(known), Markup(drawn), *(interval(cell) for cell in shown)])
    head = ["metric", "questions", Markup(scale((0.0, 1.0), width=200)), *cohorts]
    caption = (
        f"Questions made by rule from reports {run.where}. A copy of the right answer is right; ties count by their "
        "expected rank. MC4: the findings' own impression among three with one error each; the line is chance."
    )
    made = table(head, rows, caption, ["", "num", "", *["numbers"] * len(cohorts)])
    return join([legend(MEAN_OF_LOCAL, cohorts=cohorts), _curve(run, cohorts), made])


def _kinds(run: RunData, metric: str) -> list[str]:
    named = [ln.finding for ln in run.final_lines if ln.metric == metric and ln.finding]
    return sorted(dict.fromkeys(named), key=lambda kind: (kind == MACRO, kind))


def _curve(run: RunData, cohorts: list[str]) -> Markup:
    """MC4 per round: the chart of rounds above shows R@1."""
    histories = {c: run.overall_history(c, "mc4", MACRO) for c in cohorts}
    histories = {c: h for c, h in histories.items() if any(cell.value is not None for _, cell in h)}
    if not histories:
        return Markup("")
    chart = line_chart(
        series(histories, labels=True),
        title="MC4 per round",
        description="Share of questions whose right impression is nearer than three with one error; the table has the end.",
        x_label="round",
        y_range=span(
            [v for h in histories.values() for _, c in h for v in (c.value, c.low, c.high)], (0.0, 1.0), least=0.1
        ),
        show=lambda v: f"{v:.2f}",
        width=600,
        height=260,
    )
    return tag("figure", tag("figcaption", "Errors told apart (MC4)"), Markup(chart))
