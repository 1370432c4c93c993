"""The top of the page: what was run, how it ended, what came out, in a sentence and six numbers."""

from __future__ import annotations

from server.report.html import DASH, Markup, count, join, signed, size, tag, three
from server.rundata import CENTRAL, MACRO, Cell, Gain, RunData, number
from server.runs import duration, rounds_done, show_seconds

TILES = (
    ("Macro AUROC", "auroc"),
    ("Within sites", "auroc_within_site"),
    ("Mean R@1", "recall_at_1"),
    ("Errors told apart (MC4)", "mc4"),
)
CONFOUNDED = 0.02
"""A macro AUROC that falls by more than this within sites is partly earned by telling hospitals apart."""


def head(run: RunData) -> Markup:
    """Title, status, sentence, warnings, tiles."""
    status = tag("span", run.status, kind=f"status {run.status}")
    about = [f"Run {run.id}"]
    if run.run.get("started"):
        about.append(f"started {str(run.run['started'])[:19].replace('T', ' ')}")
    took = duration(run)
    if took is not None:
        about.append(f"took {show_seconds(took)}")
    return join(
        [
            tag("h1", run.name, " ", status),
            tag("p", " · ".join(about), kind="soft"),
            failure(run),
            tag("p", sentence(run), kind="lead"),
            warning(run),
            tiles(run),
        ]
    )


def failure(run: RunData) -> Markup:
    """The error, in full, if there is one."""
    if not run.error and run.status != "failed":
        return Markup("")
    words = "This run failed." if run.status == "failed" else f"This run is {run.status}, and reports an error."
    told = tag("pre", run.error) if run.error else tag("p", "It left no error text.")
    return tag("div", tag("strong", words), told, kind="alert failed", role="alert")


def sentence(run: RunData) -> Markup:
    """What came out, with its interval and what it is compared with."""
    metric, name = run.headline
    macro = run.overall("federated", metric, MACRO)
    done = rounds_done(run)
    over = f"{_plural(done, 'round')} over {_plural(len(run.sites), 'site')}{_images(run)}"
    if macro.value is None:
        why = f": {macro.reason}" if macro.reason else ""
        return join([f"No federated score was recorded{why}. The run did {over}."])
    parts: list[object] = [
        f"After {over}, the federated model reaches a {name} of ",
        tag("b", three(macro.value)),
    ]
    if macro.low is not None and macro.high is not None:
        parts.append(f" (95 % interval {three(macro.low)}{DASH}{three(macro.high)})")
    if not run.central:
        least, most = three(macro.least), three(macro.most)
        parts.append(f" on average over {macro.models} sites ({least} to {most}), each on its own unseen patients")
    elif macro.n is not None:
        items = "questions on reports" if run.text else "images"
        parts.append(f" on {count(macro.n)} {items} of patients it has not seen")
    parts.append(".")
    local, pooled = (run.overall(c, metric, MACRO) for c in ("local", "pooled"))
    same = "questions" if run.text else "images"
    if local.value is not None:
        several = f"the models that the {local.models} sites trained alone average"
        which = several if local.models > 1 else "local training reaches"
        parts.append(f" On the same {same} {which} {three(local.value)}")
        parts.append(f" and pooled training reaches {three(pooled.value)}." if pooled.value is not None else ".")
    elif pooled.value is not None:
        parts.append(f" On the same {same} pooled training reaches {three(pooled.value)}.")
    tally = _tally(run)
    return join([*parts, f" {tally}" if tally else ""])


def _plural(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def _images(run: RunData) -> str:
    sums = []
    for word, keys in (("patients", ("patients_train",)), ("training images", ("n_train",))):
        values = [next((number(s.get(k)) for k in keys if k in s), None) for s in run.declared_sites]
        known = [v for v in values if v is not None]
        if known and len(known) == len(values):
            sums.append(f"{count(sum(known))} {word}")
    return f" ({', '.join(sums)})" if sums else ""


def _tally(run: RunData) -> str:
    macro = [g for g in run.gains if g.finding == MACRO and g.site != CENTRAL]
    judged = [g for g in macro if g.low is not None]
    if not judged:
        return ""
    gained, lost = (sum(g.verdict == word for g in judged) for word in ("gained", "lost"))
    unclear = len(macro) - gained - lost
    rest = f", {unclear} without a clear difference" if unclear else ""
    return f"Of {_plural(len(macro), 'site')}, {gained} gained and {lost} lost{rest}."


def warning(run: RunData) -> Markup:
    """That the pooled score flatters, if it does."""
    whole, inside = (run.overall("federated", m, MACRO).value for m in ("auroc", "auroc_within_site"))
    if whole is None or inside is None or whole - inside <= CONFOUNDED:
        return Markup("")
    words = (
        f"Compared only within sites, the macro AUROC is {three(inside)}, {three(whole - inside)} lower. "
        "Part of the figure over all sites comes from telling hospitals apart, not from seeing disease: "
        "quote the figure within sites."
    )
    return tag("div", words, kind="alert")


def tiles(run: RunData) -> Markup:
    """The numbers people look for first; those that are not known are left out."""
    shown: list[tuple[str, object, object]] = []
    for title, metric in TILES:
        cell = run.overall("federated", metric, MACRO)
        if cell.value is not None:
            shown.append((title, three(cell.value), _range(cell)))
    whole = next((g for g in run.gains if g.finding == MACRO and g.site == CENTRAL), None)
    if whole is not None and whole.difference is not None:
        shown.append(("Gain over local", signed(whole.difference), _band(whole)))
    took, peak = duration(run), number(run.results.get("peak_memory_mb"))
    if took is not None:
        shown.append(("Wall time", show_seconds(took), _plural(rounds_done(run), "round")))
    if peak is not None:
        shown.append(("Peak memory", size(peak * 1e6), "all processes"))
    traffic = number(run.results.get("bytes_per_round"))
    if traffic is not None:
        shown.append(("Traffic a round", size(traffic), "all sites, both ways"))
    items = [
        tag("div", tag("dt", title), tag("dd", value, tag("small", extra) if extra else ""))
        for title, value, extra in shown
    ]
    return tag("dl", *items, kind="tiles") if items else Markup("")


def _range(cell: Cell) -> str:
    if cell.low is not None and cell.high is not None:
        return f"{three(cell.low)}{DASH}{three(cell.high)}"
    return f"sites: {three(cell.least)} to {three(cell.most)}" if cell.models > 1 else "no interval"


def _band(gain: Gain) -> str:
    return f"{signed(gain.low)} to {signed(gain.high)}" if gain.low is not None else "no interval"
