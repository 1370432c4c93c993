"""Curves over several runs: right values, right places, and runs that make no curve are refused."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from server.cli import app
from server.sweep import SweepError, draw, sweep, write_page

runner = CliRunner()
BY = "simulation.corrupt_labels"


def make(folder: Path, x: object, seed: int = 0, value: float = 0.8, status: str = "completed", **config) -> Path:
    """A run folder as short as it may be."""
    path = folder / f"run-{x}-{seed}"
    path.mkdir(parents=True)
    plan = {"name": path.name, "seed": seed, "simulation": {"corrupt_labels": x}, "phases": [{"rounds": 2}], **config}
    (path / "run.yaml").write_text(yaml.safe_dump({"run": path.name, "status": status, "config": plan}))
    where = {"phase": "d", "round": 2, "site": "central", "trained_on": None, "split": "test", "metric": "auroc"}
    final = [
        {**where, "cohort": c, "finding": f, "value": v, "low": v - 0.05, "high": v + 0.04, "n": 90, "positives": 30}
        for c, v in (("federated", value), ("pooled", value + 0.02))
        for f in ("macro", "Edema")
    ]
    (path / "results.json").write_text(json.dumps({"run": path.name, "status": status, "final": final}))
    return path


def test_one_run_at_each_value_keeps_its_interval_whatever_the_order(tmp_path):
    runs = [make(tmp_path, x, value=0.9 - x) for x in (0.4, 0.0, 0.2)]
    found = sweep(runs, BY)
    for spot, x in zip(found.curve("federated"), (0.0, 0.2, 0.4), strict=True):
        assert (spot.x, spot.cell.value, spot.cell.low) == pytest.approx((x, 0.9 - x, 0.85 - x))
    assert found.cohorts == ["federated", "pooled"] and found.differ == () and found.runs == {0.0: 1, 0.2: 1, 0.4: 1}


def test_seeds_are_a_mean_from_the_lowest_to_the_highest(tmp_path):
    runs = [make(tmp_path, 0.1, seed, value) for seed, value in enumerate((0.7, 0.74, 0.84))]
    [spot] = sweep(runs, BY).curve("federated")
    assert spot.cell.value == pytest.approx(0.76)
    assert (spot.cell.least, spot.cell.most, spot.cell.models, spot.cell.low) == (0.7, 0.84, 3, None)


def test_the_drawing_puts_values_where_they_are(tmp_path):
    found = sweep([make(tmp_path, x, value=v) for x, v in ((0.0, 0.9), (0.1, 0.8), (0.4, 0.6))], BY)
    html = draw(found)
    drawn = ElementTree.fromstring(re.search(r"<svg class=\"chart\".*?</svg>", html, re.S)[0])
    [line] = [e for e in drawn.iter() if e.get("class") == "line federated"]
    (x0, y0), (x1, y1), (x2, y2) = (map(float, p.split(",")) for p in line.get("points").split())
    assert (x1 - x0) / (x2 - x0) == pytest.approx(0.25, abs=0.01)
    assert (y1 - y0) / (y2 - y0) == pytest.approx(1 / 3, abs=0.01) and y2 > y0
    assert {"0", "0.1", "0.4"} <= {e.text for e in drawn.iter() if e.get("class") == "tick"}
    assert "0.600" in html and "alert" not in html


def test_values_far_apart_stand_on_an_axis_of_powers(tmp_path):
    found = sweep([make(tmp_path, x) for x in (0.3, 1.0, 100.0)], BY)
    html = draw(found)
    drawn = ElementTree.fromstring(re.search(r"<svg class=\"chart\".*?</svg>", html, re.S)[0])
    [line] = [e for e in drawn.iter() if e.get("class") == "line federated"]
    xs = [float(p.split(",")[0]) for p in line.get("points").split()]
    assert (xs[1] - xs[0]) / (xs[2] - xs[0]) == pytest.approx(math.log(1 / 0.3) / math.log(100 / 0.3), abs=0.01)
    assert "powers of ten" in html


def test_plans_that_differ_otherwise_are_said_to(tmp_path):
    found = sweep([make(tmp_path, 0.0), make(tmp_path, 0.2, seed=1, phases=[{"rounds": 3}])], BY)
    assert found.differ == ("phases.0.rounds",)
    assert "also differ in phases.0.rounds" in draw(found)


def test_another_draw_of_the_sites_is_of_the_same_curve(tmp_path):
    runs = []
    for seed in range(2):
        simulation = {"corrupt_labels": 0.1, "partition": {"alpha": 0.3, "seed": seed}}
        runs.append(make(tmp_path, 0.3, seed, simulation=simulation))
    assert sweep(runs, "simulation.partition.alpha").differ == ()


@pytest.mark.parametrize(
    ("x", "status", "by", "text"),
    [
        (0.1, "failed", BY, "failed; a curve is of completed runs"),
        ("much", "completed", BY, "no number at 'simulation.corrupt_labels'"),
        (0.1, "completed", "corrupt_labels", "there is simulation.corrupt_labels"),
    ],
)
def test_what_makes_no_curve_is_refused(tmp_path, x, status, by, text):
    with pytest.raises(SweepError, match=text):
        sweep([make(tmp_path, x, status=status)], by)


def test_the_command_writes_a_page_that_stands_alone_and_speaks_json(tmp_path):
    runs = [str(make(tmp_path, x, value=0.9 - x)) for x in (0.0, 0.2)]
    page = tmp_path / "curves.html"
    found = runner.invoke(app, ["curves", *runs, "--by", BY, "--out", str(page), "--json"])
    assert found.exit_code == 0, found.output
    said = json.loads(found.stdout)
    assert [(s["x"], s["value"]) for s in said["spots"] if s["cohort"] == "federated"] == [(0.0, 0.9), (0.2, 0.7)]
    html = page.read_text()
    assert html.startswith("<!doctype html>") and html.count("<svg") >= 1
    assert not re.search(r"https?:|//[a-z]|url\(|<script", html)
    refused = runner.invoke(app, ["curves", *runs, "--by", "no.such", "--out", str(page), "--json"])
    assert refused.exit_code == 2 and "no.such" in json.loads(refused.stdout)["error"]
    absent = runner.invoke(app, ["curves", "/no/such", "--by", BY])
    assert absent.exit_code == 2
    help_ = runner.invoke(app, ["curves", "--help"])
    assert "Example:" in help_.stdout and "--json" in help_.stdout


def test_several_sweeps_share_a_page_and_names_are_escaped(tmp_path):
    one = sweep([make(tmp_path / "a", x) for x in (0.0, 0.2)], BY)
    write_page(tmp_path / "p.html", "<b>", [("First <i>", one), ("Second", one)])
    html = (tmp_path / "p.html").read_text()
    assert html.count('<svg class="chart"') == 2 and "<b>" not in html and "<i>" not in html
