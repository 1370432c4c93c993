"""Local, federated, pooled side by side, for one run and for several."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from server.compare import print_table, show_cell, show_difference, site_table, table
from server.rundata import MACRO, Cell, Gain, read_run
from tests.server.invented import FINDINGS, SITES, InventedRun, invented  # noqa: F401


def shown(folders, width=220, **more) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_table(folders, console, **more)
    return console.file.getvalue()


def test_one_run(invented):  # noqa: F811
    rows = table([invented])
    assert rows[0].finding == MACRO and {r.finding for r in rows} == {MACRO, *FINDINGS}
    run = read_run(invented)
    for row in rows:
        assert row.federated.value == run.final("federated", "auroc", row.finding).value
        assert row.local.models == len(SITES) and row.local.low is not None
        assert row.pooled.value > row.local.value
    sites = site_table([invented])
    assert [s.gain.site for s in sites] == ["central", *SITES]
    text = shown([invented])
    assert f"{rows[0].federated.value:.3f} ({rows[0].federated.low:.3f}-" in text
    for site in sites:
        line = next(
            x for x in text.splitlines() if x.strip().startswith(site.gain.site.replace("central", "all sites"))
        )
        assert site.verdict in line and show_difference(site.gain) in line


def test_several_runs_stand_side_by_side(invented, tmp_path):  # noqa: F811
    other = InventedRun(tmp_path / "other", rounds=1, seed=1)
    other.describe("failed", name="other")
    lines = [x for x in other.round(1) if x["cohort"] == "federated"]
    other.append("metrics.jsonl", lines)
    rows = table([invented, other.folder])
    assert [(r.run, r.finding) for r in rows[:2]] == [("four-sites", MACRO), ("other", MACRO)]
    assert rows[1].local.value is None
    text = shown([invented, other.folder])
    header = " ".join(text.split())
    assert "other: failed." in header
    assert text.count("four-sites") > text.count("other:")
    assert len(site_table([invented, other.folder])) == 1 + len(SITES)


def test_runs_of_one_name_are_told_apart(invented, tmp_path):  # noqa: F811
    (tmp_path / "twin").symlink_to(invented)
    labels = {r.run for r in table([invented, tmp_path / "twin"])}
    assert labels == {f"four-sites {invented.name}"} or len(labels) == 2


def test_other_metrics_and_nothing_to_compare(invented, tmp_path):  # noqa: F811
    assert "average_precision, on the validation patients of all sites" in shown([invented], metric="average_precision")
    empty = InventedRun(tmp_path)
    empty.describe("failed")
    assert "No run here has a value of auroc." in shown([tmp_path])
    with pytest.raises(FileNotFoundError):
        table([tmp_path / "none"])


def test_cells_in_words():
    assert show_cell(Cell(0.8123, 0.78, 0.84)) == "0.812 (0.780-0.840)"
    assert show_cell(Cell(0.8, models=3, least=0.7, most=0.9)) == "0.800 [0.70 to 0.90]"
    assert show_cell(Cell(0.8)) == "0.800"
    assert show_cell(Cell(reason="no positive")) == "no positive"
    assert show_difference(Gain("a", MACRO, 0, 0, 0, -0.02, -0.04, 0.01)) == "-0.020 (-0.040 to +0.010)"
    assert show_difference(Gain("a", MACRO, 0, 0, 0, -0.0004, None, None)) == "0.000"


def test_a_narrow_screen_loses_nothing(invented):  # noqa: F811
    text = shown([invented], width=80)
    run = read_run(invented)
    for cohort in ("federated", "local", "pooled"):
        cell = run.final(cohort, "auroc", MACRO)
        assert f"({cell.low:.3f}-{cell.high:.3f})" in text
    for gain in run.gains:
        if gain.finding == MACRO:
            assert show_difference(gain).split(" ", 1)[1] in text
    assert "…" not in text
