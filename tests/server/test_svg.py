"""Drawings: right places, whole markup, nothing from data left unescaped."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.svg import MARKED, Mark, Point, Series, intervals, line_chart, scale, span, steps

number = st.floats(-1e6, 1e6)
maybe = st.none() | number


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def by_class(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [e for e in root.iter() if name in e.get("class", "").split()]


def chart(series, **more) -> ElementTree.Element:
    settings = {"title": "t", "description": "d", "x_label": "round", "y_range": (0.0, 1.0)}
    return parsed(line_chart(series, **{**settings, **more}))


@given(st.floats(-1e4, 1e4), st.floats(1e-4, 1e6), st.integers(1, 9))
def test_steps_are_round_inside_and_few(low, width, count):
    ticks = steps(low, low + width, count)
    assert all(low - 1e-6 * width <= t <= low + width * (1 + 1e-6) + 1e-9 for t in ticks)
    assert len(ticks) <= count + 2
    assert ticks == sorted(ticks)


def test_steps_known():
    assert steps(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert steps(0.62, 0.97, 4) == [0.7, 0.8, 0.9]
    assert steps(3.0, 3.0) == [3.0]


@given(st.lists(maybe | st.just(math.nan), max_size=8))
def test_span_holds_its_values(values):
    low, high = span(values)
    known = [v for v in values if v is not None and math.isfinite(v)]
    assert low < high
    assert all(low <= v <= high for v in known)


def test_span_stays_inside():
    assert span([0.99, 0.5], (0.0, 1.0))[1] == 1.0
    assert span([], (0.0, 1.0)) == (0.0, 1.0)
    low, high = span([0.8, 0.8], (0.0, 1.0), least=0.1)
    assert high - low == pytest.approx(0.1)


def test_points_stand_where_they_should():
    points = [Point(1, 0.0), Point(3, 0.5), Point(5, 1.0)]
    root = chart([Series("federated", points)])
    line = by_class(root, "line")[0].get("points").split()
    xs, ys = zip(*(map(float, p.split(",")) for p in line))
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.2)
    assert ys[0] == max(ys)
    assert ys[0] == pytest.approx(float(by_class(root, "axis")[0].get("y1")))


def test_a_gap_breaks_the_line_and_a_lone_interval_is_a_whisker():
    points = [Point(1, 0.1), Point(2, 0.2), Point(3, None), Point(4, 0.4), Point(5, 0.5, 0.4, 0.6)]
    root = chart([Series("federated", points)])
    assert len(by_class(root, "line")) == 2
    assert len(by_class(root, "dot")) == 4
    assert len(by_class(root, "whisker")) == 1 and not by_class(root, "band")


def test_a_band_is_closed_over_its_interval():
    root = chart([Series("pooled", [Point(1, 0.5, 0.4, 0.6), Point(2, 0.5, 0.3, 0.7)])])
    ys = [float(p.split(",")[1]) for p in by_class(root, "band")[0].get("points").split()]
    assert len(ys) == 4
    assert ys[1] < ys[0] < ys[3] < ys[2]  # high, higher; then back along low, lower


def test_long_series_have_one_marker():
    root = chart([Series("federated", [Point(i, 0.5) for i in range(MARKED + 1)])])
    assert len(by_class(root, "dot")) == 1


def test_labels_at_one_place_are_pushed_apart():
    series = [Series(k, [Point(1, 0.5), Point(2, 0.5)], k) for k in ("federated", "local", "pooled")]
    ys = sorted(float(e.get("y")) for e in by_class(chart(series), "label"))
    assert all(b - a >= 13.9 for a, b in pairwise(ys))


def test_the_phase_that_is_on_stands_at_the_left_edge_and_those_outside_the_series_are_not_drawn():
    series = [Series("federated", [Point(x, 0.5) for x in (7, 8, 9)])]
    root = chart(series, phases=[(0, "pretrain"), (6, "initial"), (9, "evolve"), (10, "later")])
    xs = [float(e.get("x1")) for e in by_class(root, "phase")]
    axis = by_class(root, "axis")[0]
    said = [e.text for e in root.iter() if e.text in ("pretrain", "initial", "evolve", "later")]
    assert xs == [float(axis.get("x1")), float(axis.get("x2"))] and said == ["initial", "evolve"]


def test_markers_differ_in_shape():
    marks = [Mark(k, 0.5) for k in ("federated", "local", "pooled")]
    tags = [e.tag for e in by_class(parsed(intervals(marks, (0, 1))), "dot")]
    assert tags == ["circle", "rect", "path"]


def test_intervals_share_the_scale_and_stay_inside():
    root = parsed(intervals([Mark("federated", 0.5, -3.0, 0.75), Mark("local", None)], (0.0, 1.0), width=212))
    whisker = by_class(root, "whisker")[0]
    assert (float(whisker.get("x1")), float(whisker.get("x2"))) == (6.0, 156.0)
    assert float(by_class(root, "dot")[0].get("cx")) == 106.0
    tick = next(e for e in parsed(scale((0.0, 1.0), width=212)).iter() if e.text == "0.5")
    assert float(tick.get("x")) == 106.0


def test_text_is_escaped():
    evil = '"><script>alert(1)</script>'
    svg = line_chart(
        [Series("federated", [Point(1, 0.5, text=evil)], evil)],
        title=evil,
        description=evil,
        x_label=evil,
        y_range=(0, 1),
        phases=[(1.0, evil)],
    )
    assert "<script" not in svg
    assert evil in parsed(svg).get("aria-label")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), maybe, maybe, maybe), max_size=6))
def test_whatever_comes_is_drawn_as_xml(rows):
    points = [Point(*row) for row in sorted(rows, key=lambda r: r[0])]
    root = chart(
        [Series("federated", points, "a"), Series("site", points, faint=True)],
        y_range=span([r[1] for r in rows]),
    )
    assert root.get("role") == "img"
    assert "nan" not in ElementTree.tostring(root).decode()
