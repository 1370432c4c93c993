"""What the rounds cost: seconds and bytes, over all and per site."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from server.report.html import DASH, Absent, Markup, count, join, size, table, tag
from server.rundata import CENTRAL, RunData
from server.runs import show_seconds
from server.svg import Point, Series, line_chart

KINDS = ("seconds", "bytes_up", "bytes_down", "examples", "steps")

Costs = Mapping[tuple[str, str], Mapping[float, float]]
"""(metric, site) -> moment -> value."""


def cost(run: RunData) -> Markup:
    """Seconds and bytes per round, then means per site."""
    at: dict[tuple[str, str], dict[float, float]] = {}
    for line in run.lines:
        if line.cohort == "federated" and line.metric in KINDS and line.value is not None:
            at.setdefault((line.metric, line.site), {})[run.moment(line)] = line.value
    if not at:
        return Absent("No seconds and no bytes were recorded.")
    return join([tag("div", *filter(None, [_seconds(at), _bytes(at)]), kind="grid2"), _table(at)])


def _histories(at: Costs, metric: str) -> list[Mapping[float, float]]:
    return [history for (m, site), history in at.items() if m == metric and site != CENTRAL]


def _seconds(at: Costs) -> Markup:
    sites = _histories(at, "seconds")
    whole = at.get(("seconds", CENTRAL)) or _fold(sites, max)
    if not whole:
        return Markup("")
    word = "whole round" if ("seconds", CENTRAL) in at else "slowest site"
    thin = [Series("site", [Point(x, v) for x, v in sorted(h.items())], faint=True) for h in sites]
    bold = [Point(x, v, text=f"round {x:g}: {show_seconds(v)}") for x, v in sorted(whole.items())]
    top = max([*whole.values(), *(v for h in sites for v in h.values())])
    chart = line_chart(
        [*thin, Series("federated", bold)],
        title="Seconds per round",
        description=f"{word}; {show_seconds(sum(whole.values()))} in all.",
        x_label="round",
        y_range=(0.0, top * 1.05 or 1.0),
        height=220,
    )
    note = f" {word}" + ("; thin: each site" if thin else "")
    return tag("figure", tag("figcaption", "Seconds per round", tag("small", note)), Markup(chart))


def _bytes(at: Costs) -> Markup:
    series, total, top = [], 0.0, 0.0
    for metric, kind, word in (("bytes_down", "down", "down"), ("bytes_up", "up", "up")):
        sums = at.get((metric, CENTRAL)) or _fold(_histories(at, metric), sum)
        if sums:
            total += sum(sums.values())
            top = max(top, *sums.values())
            points = [Point(x, v, text=f"round {x:g}, {word}: {size(v)}") for x, v in sorted(sums.items())]
            series.append(Series(kind, points, word))
    if not series:
        return Markup("")
    chart = line_chart(
        series,
        title="Bytes per round",
        description=f"All sites together; {size(total)} in all.",
        x_label="round",
        y_range=(0.0, top * 1.05 or 1.0),
        show=size,
        height=220,
    )
    note = tag("small", f" all sites; {size(total)} in all")
    return tag("figure", tag("figcaption", "Bytes per round", note), Markup(chart))


def _fold(histories: Iterable[Mapping[float, float]], how: Callable[[list[float]], float]) -> dict[float, float]:
    at: dict[float, list[float]] = {}
    for history in histories:
        for x, value in history.items():
            at.setdefault(x, []).append(value)
    return {x: how(values) for x, values in at.items()}


def _table(at: Costs) -> Markup:
    head = {
        "seconds": ("seconds a round", lambda v: f"{v:.1f}"),
        "steps": ("steps a round", count),
        "examples": ("examples a round", count),
        "bytes_up": ("up a round", size),
        "bytes_down": ("down a round", size),
    }
    kept = [m for m in head if _histories(at, m)]
    if not kept:
        return Markup("")
    rows = []
    for site in dict.fromkeys(site for _, site in at if site != CENTRAL):
        turns = max(len(h) for (_, s), h in at.items() if s == site)
        rows.append([site, str(turns), *(_mean(at.get((m, site), {}), head[m][1]) for m in kept)])
    titles = ["site", "rounds", *(head[m][0] for m in kept)]
    caption = "Means over the rounds in which the site answered."
    return table(titles, rows, caption, ["", *["num"] * (len(titles) - 1)])


def _mean(history: Mapping[float, float], show: Callable[[float], str]) -> str:
    return show(sum(history.values()) / len(history)) if history else DASH
