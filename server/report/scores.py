"""What the models can do at the end: per finding, per site, who gained and who lost, calibration."""

from __future__ import annotations

from collections.abc import Sequence

from server.report.curves import MEAN_OF_LOCAL, legend
from server.report.html import (
    DASH,
    SIGNS,
    Absent,
    Markup,
    count,
    details,
    difference,
    interval,
    join,
    signed,
    table,
    tag,
    text,
    three,
    verdict,
)
from server.rundata import CENTRAL, COHORTS, MACRO, Cell, Gain, RunData, number
from server.svg import Mark, intervals, scale, span

CHANCE = 0.5


def _mark(kind: str, cell: Cell) -> Mark:
    if cell.low is not None and cell.high is not None:
        return Mark(kind, cell.value, cell.low, cell.high, f"{kind}: {three(cell.value)}")
    return Mark(kind, cell.value, cell.least, cell.most, f"{kind}: {three(cell.value)}", soft=True)


def _domain(cells: Sequence[Cell], inside: tuple[float, float] = (0.0, 1.0)) -> tuple[float, float]:
    return span([v for c in cells for v in (c.value, c.low, c.high, c.least, c.most)], inside, least=0.05)


def _present(run: RunData, metric: str) -> list[str]:
    names = (MACRO, *run.findings)
    return [c for c in COHORTS if any(run.overall(c, metric, f).value is not None for f in names)]


def findings(run: RunData) -> Markup:
    """AUROC of every finding for every cohort, drawn and in numbers, and average precision."""
    if not run.findings:
        return Absent("No finding was scored.")
    names = (MACRO, *run.findings)
    cohorts = _present(run, "auroc")
    if not cohorts:
        reasons = {run.overall("federated", "auroc", f).reason for f in names} - {None}
        why = "; ".join(sorted(reasons)) or "no reason given"
        return Absent(text(f"No AUROC could be computed: {why}."))
    cells = {(c, f): run.overall(c, "auroc", f) for c in cohorts for f in names}
    domain = _domain(list(cells.values()))
    rows = []
    for name in names:
        support = next((cells[c, name] for c in cohorts if cells[c, name].n is not None), Cell())
        drawn = intervals([_mark(c, cells[c, name]) for c in cohorts], domain, rule=CHANCE)
        rows.append(
            [
                "Mean of findings" if name == MACRO else name,
                count(support.positives),
                count(support.n),
                Markup(drawn),
                *(interval(cells[c, name]) for c in cohorts),
            ]
        )
    head = ["finding", "positives", "images", Markup(scale(domain))]
    head += ["local (mean)" if c == "local" else c for c in cohorts]
    kinds = ["", "num", "num", "", *["numbers"] * len(cohorts)]
    caption = f"AUROC, {run.where}."
    if any(cell.value is not None and cell.low is None and cell.models > 1 for cell in cells.values()):
        caption += " Brackets: from the lowest to the highest value that the mean is of."
    mean = run.overall("federated", "auroc", MACRO)
    note = tag("p", f"The mean of findings is a {mean.reason}.", kind="note") if mean.reason else ""
    return join(
        [
            legend(MEAN_OF_LOCAL, cohorts=cohorts),
            table(head, rows, caption, kinds, totals=[0]),
            note,
            details("Within sites, and average precision", _other_metrics(run, names)),
        ]
    )


def _other_metrics(run: RunData, names: Sequence[str]) -> Markup:
    shown = []
    titles = {
        "auroc_within_site": "AUROC within sites: a positive is compared only with negatives of its own "
        "site, so that recognising the hospital earns nothing.",
        "average_precision": "Average precision: depends on how common the finding is; its chance level is "
        "the share of positives.",
    }
    for metric, caption in titles.items():
        cohorts = _present(run, metric)
        if not cohorts:
            continue
        rows = []
        for name in names:
            cells = [run.overall(c, metric, name) for c in cohorts]
            support = next((c for c in cells if c.n is not None), Cell())
            share = DASH
            if metric == "average_precision" and support.n and support.positives is not None and name != MACRO:
                share = three(support.positives / support.n)
            extra = [share] if metric == "average_precision" else []
            label = "Mean of findings" if name == MACRO else name
            rows.append([label, count(support.positives), count(support.n), *extra, *map(interval, cells)])
        extra = ["chance"] if metric == "average_precision" else []
        head = ["finding", "positives", "images", *extra, *cohorts]
        shown.append(table(head, rows, caption, ["", "num", "num", *["num"] * len(extra)], totals=[0]))
    return join(shown) if shown else tag("p", "Neither was recorded.", kind="soft")


def sites(run: RunData) -> Markup:
    """Every site: its data, and the three models on its own validation patients."""
    if not run.sites:
        return Absent("No site is known.")
    declared = {str(s.get("name")): s for s in run.declared_sites}
    metric, name = run.headline
    cells = {(c, s): run.final(c, metric, MACRO, s) for c in COHORTS for s in run.sites}
    cohorts = [c for c in COHORTS if any(cells[c, s].value is not None for s in run.sites)]
    domain = _domain([cells[c, s] for c in cohorts for s in run.sites])
    macro = {g.site: g for g in run.gains if g.finding == MACRO and g.site != CENTRAL}
    rows = []
    for site in run.sites:
        about = declared.get(site, {})
        row: list[object] = [
            site,
            count(number(about.get("n_train"))),
            count(number(about.get("n_validation"))),
        ]
        if cohorts:
            marks = [_mark(c, cells[c, site]) for c in cohorts]
            row += [
                count(cells["federated", site].positives),
                Markup(intervals(marks, domain, rule=CHANCE, width=200)),
            ]
            row += [interval(cells[c, site]) for c in cohorts]
        if macro:
            row.append(verdict(macro[site]) if site in macro else DASH)
        rows.append(row)
    head: list[object] = ["site", "training images", "validation images"]
    head += ["positive labels", Markup(scale(domain, width=200)), *cohorts] if cohorts else []
    head += ["federated against local"] if macro else []
    caption = (
        f"{name[0].upper()}{name[1:]} on each site's own validation patients." if cohorts else "No site has a score."
    )
    made = table(head, rows, caption, ["", "num wide", "num wide", *(["num wide"] if cohorts else [])])
    return join([legend(cohorts=cohorts) if cohorts else "", made, _positives(run)])


def _positives(run: RunData) -> Markup:
    given = {str(s.get("name")): s.get("positives") for s in run.declared_sites}
    given = {name: p for name, p in given.items() if isinstance(p, dict) and p}
    if not given:
        return Markup("")
    names = list(dict.fromkeys(str(f) for p in given.values() for f in p))
    rows = [[f, *(count(number(p.get(f))) for p in given.values())] for f in names]
    made = table(["finding", *given], rows, "Positive training labels.", ["", *["num"] * len(given)])
    return details("Positive labels per site", made)


def gains(run: RunData) -> Markup:
    """Federated minus local: the mean per site with its interval, then every finding at every site."""
    rows = run.gains
    if all(g.difference is None for g in rows):
        said = "No site has both a local and a federated score, so who gained cannot be said."
        return Absent(said)
    macro = [g for g in rows if g.finding == MACRO]
    values = [v for g in macro for v in (g.difference, g.low, g.high)]
    domain = span([*values, 0.0], least=0.02)
    shown = []
    for g in macro:
        kind = {"gained": "federated", "lost": "local"}.get(g.verdict, "pooled")
        drawn = intervals([Mark(kind, g.difference, g.low, g.high, signed(g.difference))], domain, rule=0.0, track=16)
        label = "All sites (mean of local)" if g.site == CENTRAL else g.site
        numbers = [three(v) for v in (g.local, g.federated, g.pooled)]
        shown.append([label, *numbers, Markup(drawn), difference(g), verdict(g)])
    totals = [i for i, g in enumerate(macro) if g.site == CENTRAL]
    lead = (
        "Federated minus the site's own training, same budget and seed, on the same patients. "
        "Gained or lost is said only where the 95 % interval of the difference leaves out zero."
    )
    head = [
        "site",
        "local",
        "federated",
        "pooled",
        Markup(scale(domain, show=_axis)),
        "difference",
        "verdict",
    ]
    parts = [tag("p", lead, kind="note")]
    if macro:
        name = run.headline[1]
        parts.append(table(head, shown, f"{name[0].upper()}{name[1:]}.", ["", "num", "num", "num"], totals))
    if any(g.low is None for g in macro):
        parts.append(tag("p", "Where no interval was recorded, the sign may be chance.", kind="note"))
    return join([*parts, _grid(run, rows)])


def _axis(value: float) -> str:
    return f"{value:+g}".replace("-", "\N{MINUS SIGN}") if value else "0"


def _grid(run: RunData, rows: Sequence[Gain]) -> Markup:
    cells = {(g.site, g.finding): g for g in rows if g.finding != MACRO}
    if not cells:
        return Markup("")
    places = [s for s in (CENTRAL, *run.sites) if any(site == s for site, _ in cells)]
    names = list(dict.fromkeys([*run.findings, *(f for _, f in cells)]))
    body = []
    for name in names:
        row: list[object] = [name]
        for place in places:
            g = cells.get((place, name))
            word = g.verdict if g else ""
            mark = f"{SIGNS[word]} " if word in SIGNS else ""
            spoken = tag(
                "td",
                f"{mark}{signed(g.difference) if g else DASH}",
                kind=f"cell {word if mark else 'soft'}",
                title=(g.reason if g else None) or word,
            )
            row.append(spoken)
        body.append(row)
    head = ["finding", *("all sites" if p == CENTRAL else p for p in places)]
    clear = sum(g.verdict in SIGNS for g in cells.values())
    judged = sum(g.low is not None for g in cells.values())
    chance = (
        f"Difference in {'R@1' if run.text else 'AUROC'}. {clear} of {judged} with an interval are marked ▲ gained or ▼ lost; "
        "about one in twenty would be so by chance alone."
    )
    return table(head, body, chance, ["", *["cell"] * len(places)])


def calibration(run: RunData) -> Markup:
    """Expected calibration error beside its chance level, and the Brier score."""
    cohorts = _present(run, "ece")
    if not cohorts:
        return Absent("No calibration was recorded.")
    names = (MACRO, *run.findings)
    cells = {(c, f): run.overall(c, "ece", f) for c in cohorts for f in names}
    floors = {f: run.overall("federated", "ece_floor", f) for f in names}
    known = any(f.value is not None for f in floors.values())
    high = span([c.value for c in [*cells.values(), *floors.values()]], (0.0, 1.0), least=0.05)[1]
    rows = []
    for name in names:
        marks = [Mark(c, cells[c, name].value, text=f"{c}: {three(cells[c, name].value)}") for c in cohorts]
        rows.append(
            [
                "Mean of findings" if name == MACRO else name,
                Markup(intervals(marks, (0.0, high), rule=floors[name].value, width=200)),
                *(_bare(cells[c, name]) for c in cohorts),
                *([three(floors[name].value)] if known else []),
                *(_bare(run.overall(c, "brier", name)) for c in cohorts),
            ]
        )
    head: list[object] = ["finding", Markup(scale((0.0, high), width=200)), *cohorts]
    head += ["by chance"] if known else []
    head += [f"Brier, {c}" for c in cohorts]
    lead = f"Expected calibration error {run.where} (15 bins of equal size, fewer for few images), and Brier "
    lead += "score: 0 is best. Few images raise the calibration error by chance alone, so it has no interval"
    lead += ", but a column that says by how much." if known else "."
    kinds = ["", "", *["num"] * (2 * len(cohorts) + known)]
    return join(
        [
            legend(MEAN_OF_LOCAL, floor=known, cohorts=cohorts),
            table(head, rows, lead, kinds, totals=[0]),
        ]
    )


def _bare(cell: Cell) -> Markup:
    return interval(Cell(cell.value, reason=cell.reason))
