"""What the models still know of spoilt films: AUROC over the strength of each kind, as curves and in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from server.report.curves import MEAN_OF_LOCAL, key, legend
from server.report.html import DASH, MINUS, Absent, Markup, details, interval, join, signed, table, tag, three
from server.rundata import COHORTS, MACRO, UNDER, Cell, Line, RunData
from server.svg import Point, Series, line_chart, span, steps

AXES = {
    "noise": ("Noise", "standard deviation; white is 1"),
    "blur": ("Blur", "sigma, share of the film's side"),
    "contrast": ("Contrast", "factor about the film's mean"),
    "brightness": ("Brightness", "added to every pixel"),
}
FEWEST_APART = 0.09
"""Share of the axis that two marked strengths are at least apart."""

Curve = Mapping[float, Line]
"""Strength -> line."""


def robustness(run: RunData) -> Markup:
    """Small multiples, one for each kind of damage; empty where the plan did not ask for it."""
    found = _curves(run)
    last, *earlier = reversed(list(dict.fromkeys(phase for phase, _, _ in found))) if found else [None]
    kinds = [k for k in AXES if any(kind == k for _, _, kind in found)]
    if not kinds:
        return Absent("The run did not come to judge spoilt films.") if _asked(run) else Markup("")
    cohorts = [c for c in COHORTS if any((last, c, k) in found for k in kinds)]
    values = [v for curve in found.values() for ln in curve.values() for v in (ln.value, ln.low, ln.high)]
    y_range = span(values, (0.0, 1.0), least=0.1)
    figures = [_figure(k, last, earlier, cohorts, found, y_range) for k in kinds]
    lead = (
        f"Macro AUROC {run.where}, each film spoilt as said below each chart, the same for every model. One scale for all; "
        "bands are 95 % intervals."
    )
    extra = [key('<path class="line earlier faint" d="M0 7H24"/>', f"federated, end of {p}") for p in earlier]
    return join(
        [
            legend(MEAN_OF_LOCAL, cohorts=cohorts, more=extra),
            tag("p", lead, kind="note"),
            tag("div", *figures, kind="grid2"),
            details("Spoilt films in numbers", _table(run, last, earlier, cohorts, kinds, found)),
        ]
    )


def _asked(run: RunData) -> bool:
    config = run.run.get("config")
    evaluation = config.get("evaluation") if isinstance(config, dict) else None
    return isinstance(evaluation, dict) and bool(evaluation.get("robustness"))


def _curves(run: RunData, metric: str = "auroc") -> dict[tuple[str, str, str], Curve]:
    """By phase, cohort and kind, of the mean over findings."""
    found: dict[tuple[str, str, str], dict[float, Line]] = {}
    for line in run.spoilt:
        which, kind = UNDER.fullmatch(line.metric).groups()
        if which == metric and line.finding == MACRO and kind in AXES:
            found.setdefault((line.phase, line.cohort, kind), {})[line.strength] = line
    return found


def _figure(
    kind: str,
    last: str,
    earlier: Sequence[str],
    cohorts: Sequence[str],
    found: Mapping[tuple[str, str, str], Curve],
    y_range: tuple[float, float],
) -> Markup:
    title, unit = AXES[kind]
    thin = [
        Series("earlier", _points(found[p, "federated", kind], p), faint=True)
        for p in earlier
        if (p, "federated", kind) in found
    ]
    shown = {c: found[last, c, kind] for c in ("pooled", "local", "federated") if (last, c, kind) in found}
    strengths = sorted({x for curve in shown.values() for x in curve})
    chart = line_chart(
        [*thin, *(Series(c, _points(curve, c)) for c, curve in shown.items())],
        title=f"Macro AUROC under {title.lower()}",
        description="; ".join(f"{c} {_ends(shown[c])}" for c in cohorts if c in shown) + ".",
        x_label=unit,
        y_range=y_range,
        show=lambda v: f"{v:.2f}",
        height=240,
        x_ticks=[(x, _strength(x)) for x in _marked(strengths)],
    )
    return tag("figure", tag("figcaption", title), Markup(chart))


def _points(curve: Curve, name: str) -> list[Point]:
    return [Point(x, ln.value, ln.low, ln.high, f"{name}, {x:g}: {three(ln.value)}") for x, ln in sorted(curve.items())]


def _strength(x: float) -> str:
    return f"{x:g}".replace("-", MINUS)


def _marked(strengths: Sequence[float]) -> Sequence[float]:
    """The strengths themselves, or round numbers where they stand too close."""
    least = FEWEST_APART * (strengths[-1] - strengths[0])
    crowded = any(b - a < least for a, b in pairwise(strengths))
    return steps(strengths[0], strengths[-1], 5) if crowded else strengths


def _ends(curve: Curve) -> str:
    low, high = min(curve), max(curve)
    return f"{three(curve[low].value)} at {low:g}, {three(curve[high].value)} at {high:g}"


def _table(
    run: RunData,
    last: str,
    earlier: Sequence[str],
    cohorts: Sequence[str],
    kinds: Sequence[str],
    found: Mapping[tuple[str, str, str], Curve],
) -> Markup:
    lost = _curves(run, "auroc_difference")
    columns = [(last, c) for c in cohorts] + [(p, "federated") for p in earlier]
    rows = []
    for kind in kinds:
        for x in sorted({x for phase, c in columns for x in found.get((phase, c, kind), {})}):
            cells = [interval(_cell(found.get((p, c, kind), {}).get(x))) for p, c in columns]
            change = lost.get((last, "federated", kind), {}).get(x)
            rows.append([f"{kind} {_strength(x)}", *cells, _change(change)])
    head = ["films", *cohorts, *(f"federated, end of {p}" for p in earlier), "federated, against untouched films"]
    caption = f"Macro AUROC {run.where}; the change has a paired interval."
    return table(head, rows, caption, ["", *["num"] * (len(head) - 1)])


def _cell(line: Line | None) -> Cell:
    return Cell() if line is None else Cell(line.value, line.low, line.high, line.n, line.positives, line.reason)


def _change(line: Line | None) -> Markup | str:
    if line is None or line.value is None:
        return DASH
    if line.low is None or line.high is None:
        return signed(line.value)
    return join([signed(line.value), " ", tag("span", f"{signed(line.low)} to {signed(line.high)}", kind="ci")])
