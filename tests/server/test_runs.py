"""Listing runs, whole and broken."""

from __future__ import annotations

import io
import json
import os
import time

import pytest
from rich.console import Console

from server.runs import list_runs, parse_time, print_runs, show_seconds
from tests.server.invented import InventedRun, invented  # noqa: F401


def shown(rows) -> str:
    console = Console(file=io.StringIO(), width=200, color_system=None)
    print_runs(rows, console)
    return console.file.getvalue()


def test_whole_failed_running_and_broken_runs(invented, tmp_path):  # noqa: F811
    (tmp_path / "good").symlink_to(invented)
    bad = InventedRun(tmp_path / "bad")
    bad.describe("failed", started="2031-05-05T00:00:00Z", run="bad")
    bad.finish("failed", [], [], error="NotEnoughSites: 1 of [3] sites")
    live = InventedRun(tmp_path / "live")
    live.describe("running", started="2031-05-06T00:00:00Z")
    live.append("metrics.jsonl", [x for x in live.round(1) if x["cohort"] == "federated"])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.yaml").write_text("a: [")
    (tmp_path / "stray").mkdir()
    (tmp_path / "note.txt").write_text("x")
    rows = list_runs(tmp_path)
    assert [r.status for r in rows] == ["running", "failed", "completed", "unknown"]
    assert [r.rounds for r in rows] == [1, 3, 3, 0]
    live_row, bad_row, good_row, broken_row = rows
    assert bad_row.note == "NotEnoughSites: 1 of [3] sites" and bad_row.auroc is None
    assert good_row.low < good_row.auroc < good_row.high and good_row.seconds == 1112.0
    assert live_row.auroc is not None and live_row.note == "" and live_row.seconds is None
    assert "not valid YAML" in broken_row.note
    text = shown(rows)
    assert "1 of [3] sites" in text  # square brackets are text, not markup
    assert f"{good_row.auroc:.3f}" in text and "18 min 32 s" in text


def test_a_run_that_went_quiet_is_said_to_be_dead(tmp_path):
    run = InventedRun(tmp_path / "run")
    run.describe("running")
    old = time.time() - 3 * 3600
    os.utime(run.folder / "run.yaml", (old, old))
    assert list_runs(tmp_path)[0].note == "nothing written for 3 h 00 min; probably killed, resume or remove it"


def test_odd_values_do_not_hide_the_other_runs(tmp_path):
    for name, content in (
        ("a", {"started": [1], "status": {"x": 1}, "sites": 5}),
        ("b", {"seconds": "long"}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.yaml").write_text(json.dumps(content))
        (tmp_path / name / "results.json").write_text(json.dumps(content))
    assert {r.id for r in list_runs(tmp_path)} == {"a", "b"}
    assert shown(list_runs(tmp_path))


def test_no_folder_and_no_runs(tmp_path):
    with pytest.raises(FileNotFoundError, match="give the folder that holds the runs"):
        list_runs(tmp_path / "none")
    assert shown(list_runs(tmp_path)) == "No runs here yet.\n"


def test_times():
    assert [show_seconds(s) for s in (None, 3.14, 65, 3720)] == ["", "3.1 s", "1 min 05 s", "1 h 02 min"]
    assert parse_time("2031-05-04T09:12:30Z").hour == 9
    assert parse_time(parse_time("2031-05-04")) == parse_time("2031-05-04 00:00:00")
    assert parse_time("soon") is None and parse_time(None) is None
