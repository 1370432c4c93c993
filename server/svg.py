"""Small SVG drawings for pages that may fetch nothing: line charts with bands, interval marks, bars.

Colours are CSS classes (`federated`, `local`, `pooled`, ...), so that a page's style sheet decides on
light, dark and print. Cohorts differ in marker and dash as well as in colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

MARKED = 40
"""Points per line up to which every point has a marker and a tooltip; beyond, they would only be clutter."""


@dataclass(frozen=True)
class Point:
    """A value at ``x``; ``y`` None breaks the line; ``text`` is the tooltip."""

    x: float
    y: float | None
    low: float | None = None
    high: float | None = None
    text: str = ""


@dataclass(frozen=True)
class Series:
    """A line. ``kind`` is its CSS class and marker; ``label`` stands at its end; faint lines have no
    marker."""

    kind: str
    points: Sequence[Point]
    label: str = ""
    faint: bool = False


@dataclass(frozen=True)
class Mark:
    """One value with its interval in an interval row. ``soft``: the interval is a range, drawn dotted."""

    kind: str
    value: float | None
    low: float | None = None
    high: float | None = None
    text: str = ""
    soft: bool = False


def steps(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5, 5 times a power of ten) that lie in [low, high], about ``count``."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    raw = span / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(m for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def span(
    values: Sequence[float | None], inside: tuple[float, float] | None = None, least: float = 0.0
) -> tuple[float, float]:
    """A range that holds ``values`` with a little air, at least ``least`` wide, never outside ``inside``."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    if not known:
        return inside or (0.0, 1.0)
    low, high = min(known), max(known)
    air = max((high - low) * 0.06, (least - (high - low)) / 2, 1e-9 if high > low else abs(high) * 0.05 or 0.5)
    low, high = low - air, high + air
    if inside:
        low, high = max(low, inside[0]), min(high, inside[1])
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    description: str,
    x_label: str,
    y_range: tuple[float, float],
    show: Callable[[float], str] = lambda v: f"{v:g}",
    width: int = 520,
    height: int = 280,
    phases: Sequence[tuple[float, str]] = (),
    x_ticks: Sequence[tuple[float, str]] | None = None,
) -> str:
    """Lines with interval bands and labels at their ends; ``phases`` are dated vertical rules. ``x_ticks``: where the
    axis is marked, and with what; by default at some whole numbers, for rounds."""
    xs = [p.x for s in series for p in s.points]
    x_range = (min(xs), max(xs)) if xs else (0.0, 1.0)
    if x_range[0] == x_range[1]:
        x_range = (x_range[0] - 1, x_range[1] + 1)
    room = max((len(s.label) for s in series), default=0) * 7.4 + 12 if any(s.label for s in series) else 12
    ticks = steps(*y_range)
    left = max((len(show(t)) for t in ticks), default=0) * 6.6 + 12
    frame = _Frame(left, 14, width - room, height - 34, x_range, y_range)
    parts = [*_grid(frame, ticks, show), *_axis(frame, x_label, x_ticks), *_phases(frame, phases)]
    parts += [_band(frame, s) for s in series if not s.faint]
    parts += [_line(frame, s) for s in series]
    parts += [_points(frame, s) for s in series if not s.faint]
    parts += _labels(frame, series)
    return _svg(width, height, title, description, "".join(parts), "chart")


@dataclass(frozen=True)
class _Frame:
    left: float
    top: float
    right: float
    bottom: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        low, high = self.y_range
        share = (min(max(value, low), high) - low) / (high - low)
        return self.bottom - share * (self.bottom - self.top)


def _grid(frame: _Frame, ticks: Sequence[float], show: Callable[[float], str]) -> list[str]:
    parts = []
    for tick in ticks:
        y = frame.y(tick)
        parts.append(f'<line class="grid" x1="{frame.left:.1f}" x2="{frame.right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(frame.left - 6, y + 4, show(tick), "tick", "end"))
    return parts


def _axis(frame: _Frame, label: str, ticks: Sequence[tuple[float, str]] | None) -> list[str]:
    parts = [
        f'<line class="axis" x1="{frame.left:.1f}" x2="{frame.right:.1f}" y1="{frame.bottom:.1f}" '
        f'y2="{frame.bottom:.1f}"/>'
    ]
    if ticks is None:
        ticks = [(t, f"{t:g}") for t in steps(*frame.x_range, 6) if float(t).is_integer()]
    parts += [_text(frame.x(t), frame.bottom + 16, word, "tick", "middle") for t, word in ticks]
    parts.append(_text((frame.left + frame.right) / 2, frame.bottom + 31, label, "tick", "middle"))
    return parts


def _phases(frame: _Frame, phases: Sequence[tuple[float, str]]) -> list[str]:
    parts, (low, high) = [], frame.x_range
    # A series may begin long after the run's first phase: what is on at its left edge stands there, what was before not.
    on = max((start for start, _ in phases if start <= low), default=low)
    for start, name in phases:
        if not on <= start <= high:
            continue
        x = frame.x(max(start, low))
        parts.append(f'<line class="phase" x1="{x:.1f}" x2="{x:.1f}" y1="{frame.top:.1f}" y2="{frame.bottom:.1f}"/>')
        parts.append(_text(x + 4, frame.top + 8, name, "tick", "start"))
    return parts


def _runs(points: Sequence[Point], needs: Callable[[Point], bool]) -> list[list[Point]]:
    """Unbroken stretches of points that have what is needed."""
    stretches: list[list[Point]] = [[]]
    for point in points:
        if needs(point):
            stretches[-1].append(point)
        elif stretches[-1]:
            stretches.append([])
    return [s for s in stretches if s]


def _band(frame: _Frame, series: Series) -> str:
    parts = []
    for stretch in _runs(series.points, lambda p: p.low is not None and p.high is not None):
        if len(stretch) == 1:
            p = stretch[0]
            parts.append(
                f'<line class="whisker {series.kind}" x1="{frame.x(p.x):.1f}" x2="{frame.x(p.x):.1f}" '
                f'y1="{frame.y(p.low):.1f}" y2="{frame.y(p.high):.1f}"/>'
            )
            continue
        over = " ".join(f"{frame.x(p.x):.1f},{frame.y(p.high):.1f}" for p in stretch)
        under = " ".join(f"{frame.x(p.x):.1f},{frame.y(p.low):.1f}" for p in reversed(stretch))
        parts.append(f'<polygon class="band {series.kind}" points="{over} {under}"/>')
    return "".join(parts)


def _line(frame: _Frame, series: Series) -> str:
    parts = []
    for stretch in _runs(series.points, lambda p: p.y is not None):
        if len(stretch) > 1:
            path = " ".join(f"{frame.x(p.x):.1f},{frame.y(p.y):.1f}" for p in stretch)
            faint = " faint" if series.faint else ""
            parts.append(f'<polyline class="line {series.kind}{faint}" points="{path}"/>')
    return "".join(parts)


def _points(frame: _Frame, series: Series) -> str:
    shown = [p for p in series.points if p.y is not None]
    if len(shown) > MARKED:
        shown = shown[-1:]
    return "".join(marker(series.kind, frame.x(p.x), frame.y(p.y), p.text, 3.2) for p in shown)


def _labels(frame: _Frame, series: Sequence[Series]) -> list[str]:
    """Names at the ends of the lines, pushed apart where ends are close."""
    ends = []
    for s in series:
        last = next((p for p in reversed(s.points) if p.y is not None), None)
        if s.label and last is not None:
            ends.append([frame.y(last.y), s])
    ends.sort(key=lambda e: e[0])
    gap = 14.0
    for before, after in pairwise(ends):
        after[0] = max(after[0], before[0] + gap)
    for after, before in zip(ends[::-1], ends[-2::-1]):
        after[0] = min(after[0], frame.bottom)
        before[0] = min(before[0], after[0] - gap)
    return [_text(frame.right + 8, y + 4, s.label, f"label {s.kind}", "start") for y, s in ends]


def marker(kind: str, x: float, y: float, text: str = "", size: float = 4.0) -> str:
    """The mark of a cohort: federated a disc, local a square, pooled a hollow diamond."""
    tip = f"<title>{escape(text)}</title>" if text else ""
    if kind == "local":
        shape = f'rect x="{x - size:.1f}" y="{y - size:.1f}" width="{2 * size:.1f}" height="{2 * size:.1f}"'
        return f'<{shape} class="dot {kind}">{tip}</rect>'
    if kind == "pooled":
        d = size * 1.35
        shape = f"M{x:.1f} {y - d:.1f}L{x + d:.1f} {y:.1f}L{x:.1f} {y + d:.1f}L{x - d:.1f} {y:.1f}Z"
        return f'<path d="{shape}" class="dot {kind}">{tip}</path>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}" class="dot {kind}">{tip}</circle>'


def intervals(
    marks: Sequence[Mark],
    domain: tuple[float, float],
    *,
    width: int = 260,
    rule: float | None = None,
    track: int = 12,
) -> str:
    """One track per mark on a common scale, for a table row that holds the same numbers (hence hidden from
    screen readers). ``rule`` draws a dashed line, say at chance or at zero."""
    height = track * len(marks) + 6
    frame = _Frame(6, 0, width - 6, height, domain, (0, 1))
    parts = []
    low, high = domain
    if rule is not None and low <= rule <= high:
        x = frame.x(rule)
        parts.append(f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}"/>')
    for i, mark in enumerate(marks):
        if mark.value is None:
            continue
        y = 3 + track * (i + 0.5)
        if mark.low is not None and mark.high is not None:
            a, b = (frame.x(min(max(v, low), high)) for v in (mark.low, mark.high))
            kind = f"whisker {mark.kind}{' soft' if mark.soft else ''}"
            parts.append(f'<line class="{kind}" x1="{a:.1f}" x2="{b:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(marker(mark.kind, frame.x(min(max(mark.value, low), high)), y, mark.text, 3.6))
    return (
        f'<svg class="intervals" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'aria-hidden="true">{"".join(parts)}</svg>'
    )


def scale(domain: tuple[float, float], *, width: int = 260, show: Callable[[float], str] = lambda v: f"{v:g}") -> str:
    """The axis that stands above a column of :func:`intervals`."""
    frame = _Frame(6, 0, width - 6, 18, domain, (0, 1))
    parts = [f'<line class="axis" x1="6" x2="{width - 6}" y1="17.5" y2="17.5"/>']
    for tick in steps(*domain, 4):
        x = frame.x(tick)
        anchor = "start" if x < 18 else "end" if x > width - 18 else "middle"
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="14" y2="17.5"/>')
        parts.append(_text(x, 11, show(tick), "tick", anchor))
    return (
        f'<svg class="intervals" width="{width}" height="18" viewBox="0 0 {width} 18" aria-hidden="true">'
        f"{''.join(parts)}</svg>"
    )


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: int, height: int, title: str, description: str, body: str, kind: str) -> str:
    label = escape(f"{title}. {description}", quote=True)
    return f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{body}</svg>'
