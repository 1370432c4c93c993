"""What happened over the rounds: scores over all and at each site, training loss, size of the updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from server.report.html import DASH, Absent, Markup, details, interval, join, table, tag, three
from server.rundata import CENTRAL, COHORTS, MACRO, Cell, Line, RunData
from server.svg import Point, Series, line_chart, marker, span

SMALL_MULTIPLES = 12
ROUNDS_IN_TABLE = 60
MEAN_OF_LOCAL = "local: mean of the sites' own models"

History = Sequence[tuple[float, Cell]]


def legend(
    local: str = "local: the site's own model",
    floor: bool = False,
    cohorts: Sequence[str] = COHORTS,
    more: Sequence[Markup] = (),
) -> Markup:
    """Markers, dashes and words of the cohorts; ``more``: further keys."""
    names = {"federated": "federated", "local": local, "pooled": "pooled training"}
    keys = [key(f'<path class="line {c}" d="M0 7H24"/>{marker(c, 12, 7)}', names[c]) for c in cohorts]
    if floor:
        keys.append(key('<line class="rule" x1="12" x2="12" y1="0" y2="14"/>', "by chance, if calibrated"))
    return tag("ul", *keys, *more, kind="legend")


def key(drawn: str, word: str) -> Markup:
    """An entry of a legend."""
    return tag("li", Markup(f'<svg viewBox="0 0 24 14" aria-hidden="true">{drawn}</svg>'), word)


def rounds(run: RunData) -> Markup:
    """The headline metric overall and per site, training losses and update norms, per round."""
    histories = {c: run.overall_history(c, run.headline[0], MACRO) for c in COHORTS}
    histories = {c: h for c, h in histories.items() if any(cell.value is not None for _, cell in h)}
    losses = [m for m in dict.fromkeys(ln.metric for ln in run.lines) if m == "loss" or m.endswith("_loss")]
    training = [_training(run, m, "Training loss", m.removesuffix("_loss")) for m in losses[:3]]
    training.append(_training(run, "update_norm", "Size of the updates", "norm"))
    if not histories:
        said = f"No {run.headline[1]} was recorded in any round."
        drawn = [figure for figure in training if figure]
        return join([tag("p", said), tag("div", *drawn, kind="grid2")]) if drawn else Absent(said)
    return join(
        [
            legend(MEAN_OF_LOCAL, cohorts=list(histories)),
            tag("div", _macro(run, histories), tag("div", *filter(None, training)), kind="grid-main"),
            details(f"{_title(run)} per round in numbers", _round_table(run, histories)),
            _per_site(run),
        ]
    )


def _title(run: RunData) -> str:
    name = run.headline[1]
    return name[0].upper() + name[1:]


def series(histories: Mapping[str, History], labels: bool) -> list[Series]:
    """Federated last, so that it lies on top."""
    made = []
    for cohort in ("pooled", "local", "federated"):
        if cohort in histories:
            points = [
                Point(x, c.value, c.low, c.high, f"{cohort}, round {x:g}: {_plain(c)}") for x, c in histories[cohort]
            ]
            made.append(Series(cohort, points, cohort if labels else ""))
    return made


def _plain(cell: Cell) -> str:
    band = f" ({three(cell.low)}{DASH}{three(cell.high)})" if cell.low is not None else ""
    return f"{three(cell.value)}{band}"


def _ends(histories: Mapping[str, History]) -> str:
    return "; ".join(f"{c} ends at {three(h[-1][1].value)}" for c, h in histories.items()) + "."


def _score_range(histories: Sequence[History]) -> tuple[float, float]:
    values = [v for h in histories for _, c in h for v in (c.value, c.low, c.high)]
    return span(values, (0.0, 1.0), least=0.1)


def _phase_rules(run: RunData) -> list[tuple[float, str]]:
    starts: dict[str, float] = {}
    for (phase, _), x in run.moments.items():
        starts[phase] = min(x, starts.get(phase, x))
    return [(x, phase) for phase, x in starts.items()] if len(starts) > 1 else []


def _macro(run: RunData, histories: Mapping[str, History]) -> Markup:
    chart = line_chart(
        series(histories, labels=True),
        title=f"{_title(run)} per round",
        description=f"{_ends(histories)} The numbers follow in a table.",
        x_label="round",
        y_range=_score_range(list(histories.values())),
        show=lambda v: f"{v:.2f}",
        width=600,
        height=440,
        phases=_phase_rules(run),
    )
    shaded = any(c.low is not None for h in histories.values() for _, c in h)
    note = run.where + ("; bands are 95 % intervals" if shaded else "")
    return tag("figure", tag("figcaption", _title(run), tag("small", f" {note}")), Markup(chart))


def _round_table(run: RunData, histories: Mapping[str, History]) -> Markup:
    several = len({phase for phase, _ in run.moments}) > 1
    names = {x: f"{phase} {number}" if several else str(number) for (phase, number), x in run.moments.items()}
    at = {c: dict(h) for c, h in histories.items()}
    xs = sorted({x for h in at.values() for x in h})
    cut = xs[-ROUNDS_IN_TABLE:]
    rows = [[names.get(x, f"{x:g}"), *(interval(at[c].get(x, Cell())) for c in at)] for x in cut]
    more = "" if len(cut) == len(xs) else f" The last {len(cut)} of {len(xs)} rounds; metrics.jsonl holds all."
    return table(["round", *at], rows, f"{_title(run)}, {run.where}.{more}")


def _per_site(run: RunData) -> Markup:
    curves: dict[str, dict[str, History]] = {}
    for site in run.sites:
        found = {c: run.history(c, run.headline[0], MACRO, site) for c in COHORTS}
        found = {c: h for c, h in found.items() if any(cell.value is not None for _, cell in h)}
        if found:
            curves[site] = found
    if not curves:
        return Markup("")
    shown = dict(list(curves.items())[:SMALL_MULTIPLES])
    y_range = _score_range([h for found in shown.values() for h in found.values()])
    figures = [tag("figure", tag("figcaption", s), _site_chart(run, s, found, y_range)) for s, found in shown.items()]
    hidden = len(curves) - len(shown)
    note = tag("p", f"{hidden} further sites stand in the table of sites.", kind="note") if hidden else ""
    lead = tag(
        "p",
        "Each site on its own validation patients; one scale for all. Local is the site's own model.",
        kind="note",
    )
    return join([tag("h3", f"{_title(run)} at each site"), lead, tag("div", *figures, kind="small"), note])


def _site_chart(run: RunData, site: str, histories: Mapping[str, History], y_range: tuple[float, float]) -> Markup:
    return Markup(
        line_chart(
            series(histories, labels=False),
            title=f"{_title(run)} per round at {site}",
            description=_ends(histories),
            x_label="round",
            y_range=y_range,
            show=lambda v: f"{v:.2f}",
            width=260,
            height=180,
        )
    )


def _training(run: RunData, metric: str, title: str, word: str) -> Markup:
    """A training metric of the federation: every site faintly, the mean by number of examples on top."""
    lines = [ln for ln in run.lines if ln.metric == metric and ln.cohort == "federated" and ln.value is not None]
    by_site: dict[str, list[Line]] = {}
    for line in sorted(lines, key=run.moment):
        by_site.setdefault(line.site, []).append(line)
    whole = {run.moment(ln): ln.value for ln in by_site.pop(CENTRAL, [])} or _weighted(run, by_site.values())
    if not whole:
        return Markup("")
    faint = [Series("site", [Point(run.moment(ln), ln.value) for ln in h], faint=True) for h in by_site.values()]
    bold = Series("federated", [Point(x, v, text=f"round {x:g}: {v:.4g}") for x, v in sorted(whole.items())])
    first, last = whole[min(whole)], whole[max(whole)]
    chart = line_chart(
        [*faint, bold],
        title=f"{title} per round",
        description=f"Mean over sites, from {first:.4g} to {last:.4g}.",
        x_label="round",
        y_range=span([ln.value for ln in lines]),
        show=lambda v: f"{v:.3g}",
        width=400,
        height=200,
        phases=_phase_rules(run),
    )
    note = f" {word}, mean over sites" + ("; thin: each site" if len(faint) > 1 else "")
    return tag("figure", tag("figcaption", title, tag("small", note)), Markup(chart))


def _weighted(run: RunData, histories) -> dict[float, float]:
    sums: dict[float, list[float]] = {}
    for history in histories:
        for line in history:
            total = sums.setdefault(run.moment(line), [0.0, 0.0])
            weight = float(line.n or 1)
            total[0] += weight * line.value
            total[1] += weight
    return {x: a / b for x, (a, b) in sums.items()}
