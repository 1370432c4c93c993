"""HTML by small functions. Text is escaped where it enters; :class:`Markup` is what has been."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from html import escape

from server.rundata import Cell, Gain

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
SIGNS = {"gained": "▲", "lost": "▼"}


class Markup(str):
    """A string that is HTML already."""


class Absent(Markup):
    """A part of the page that the run folder holds nothing for: the sentence that says so."""


def text(value: object) -> Markup:
    """Escape ``value`` unless it is Markup."""
    return value if isinstance(value, Markup) else Markup(escape(str(value)))


def join(parts: Iterable[object], between: str = "") -> Markup:
    """Concatenate, each part escaped unless Markup."""
    return Markup(between.join(text(p) for p in parts))


def tag(name: str, *inside: object, **attributes: object) -> Markup:
    """``<name ...>inside</name>``; attributes None are left out, ``kind`` is class, ``_`` becomes ``-``."""
    given = {"class" if k == "kind" else k.rstrip("_").replace("_", "-"): v for k, v in attributes.items()}
    listed = "".join(f' {k}="{escape(str(v), quote=True)}"' for k, v in given.items() if v is not None and v != "")
    return Markup(f"<{name}{listed}>{join(inside)}</{name}>")


def table(
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    caption: str,
    kinds: Sequence[str] = (),
    totals: Iterable[int] = (),
    pin: bool = True,
) -> Markup:
    """A table whose first column names the rows, under its caption (which does not scroll with it).

    Args:
        head: column titles.
        rows: cells; a cell may be a whole ``td``.
        caption: what the table shows; also its name for screen readers.
        kinds: CSS classes by column.
        totals: positions of rows that stand out.
        pin: keep the first column in sight on narrow screens.
    """
    kinds = [*kinds, *[""] * (len(head) - len(kinds))]
    marked = set(totals)
    body = []
    for i, (first, *rest) in enumerate(rows):
        cells = [tag("th", first, scope="row", kind=kinds[0])]
        cells += [c if _is_cell(c) else tag("td", c, kind=k) for c, k in zip(rest, kinds[1:])]
        body.append(tag("tr", *cells, kind="total" if i in marked else ""))
    titles = tag("tr", *(tag("th", h, scope="col", kind=k) for h, k in zip(head, kinds)))
    name = f"t{zlib.crc32(caption.encode()):08x}"
    made = tag("table", tag("thead", titles), tag("tbody", *body), kind="pin" if pin else "", aria_labelledby=name)
    frame = tag("div", made, kind="scroll", tabindex=0, role="region", aria_labelledby=name)
    return join([tag("p", caption, id=name, kind="caption"), frame])


def _is_cell(value: object) -> bool:
    return isinstance(value, Markup) and value.startswith("<td")


def details(summary: str, *inside: object, opened: bool = False) -> Markup:
    """A part that opens on demand."""
    start = "<details open>" if opened else "<details>"
    return Markup(f"{start}{tag('summary', summary)}{join(inside)}</details>")


def three(value: float | None) -> str:
    """Three decimals with a true minus; a dash for none."""
    return DASH if value is None else f"{value + 0.0:.3f}".replace("-", MINUS)


def signed(value: float | None) -> str:
    """`+0.031`; what rounds to zero has no sign."""
    if value is None:
        return DASH
    shown = f"{value:+.3f}"
    return "0.000" if float(shown) == 0 else shown.replace("-", MINUS)


def count(value: float | None) -> str:
    """Thousands apart by thin spaces."""
    return DASH if value is None else f"{round(value):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def interval(cell: Cell) -> Markup:
    """`0.812 0.780-0.843`, the interval softer; the reason where there is no value."""
    if cell.value is None:
        return tag("span", cell.reason, kind="why") if cell.reason else Markup(DASH)
    if cell.low is not None and cell.high is not None:
        return join([three(cell.value), " ", tag("span", f"{three(cell.low)}{DASH}{three(cell.high)}", kind="ci")])
    if cell.models > 1 and cell.least is not None and cell.most is not None:
        spread = f"[{three(cell.least)} to {three(cell.most)}]"
        return join([three(cell.value), " ", tag("span", spread, kind="ci")])
    return text(three(cell.value))


def difference(gain: Gain) -> Markup:
    """`+0.031 +0.010 to +0.052`."""
    if gain.low is None or gain.high is None:
        return text(signed(gain.difference))
    return join([signed(gain.difference), " ", tag("span", f"{signed(gain.low)} to {signed(gain.high)}", kind="ci")])


def verdict(gain: Gain) -> Markup:
    """Sign and word, coloured by who won."""
    word = gain.verdict
    return tag("span", f"{SIGNS.get(word, '·')} {word}", kind=f"verdict {word if word in SIGNS else 'soft'}")


def size(value: float | None) -> str:
    """Bytes in decimal units: `12.3 MB`."""
    if value is None:
        return DASH
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000 or unit == "GB":
            digits = 0 if unit == "B" or abs(value) >= 100 else 1
            return f"{value:.{digits}f}".removesuffix(".0") + f" {unit}"
        value /= 1000
    raise AssertionError("unreachable")
