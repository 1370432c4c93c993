"""Reading run folders: the right value from the right line, whatever state the folder is in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.report import render
from server.rundata import MACRO, Cell, Gain, RunData, number, read_run
from tests.server.invented import FINDINGS, SITES, InventedRun, invented  # noqa: F401


def line(turn=1, cohort="federated", site="central", metric="auroc", finding=MACRO, value=0.5, **more) -> dict:
    given = {
        "phase": "a",
        "round": turn,
        "cohort": cohort,
        "site": site,
        "metric": metric,
        "finding": finding,
    }
    return {**given, "value": value, **more}


def folder_with(path: Path, lines: list[dict], results: dict | None = None) -> RunData:
    path.mkdir(exist_ok=True)
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    if results is not None:
        (path / "results.json").write_text(json.dumps(results))
    return read_run(path)


def test_a_whole_run(invented):  # noqa: F811
    run = read_run(invented)
    assert run.problems == ()
    assert (run.name, run.status, run.error) == ("four-sites", "completed", None)
    assert run.sites == tuple(SITES)
    assert run.trainers == tuple(SITES)
    assert set(run.findings) == set(FINDINGS)
    raw = [json.loads(text) for text in (invented / "metrics.jsonl").read_text().splitlines()]
    want = [
        x["value"]
        for x in raw
        if (x["cohort"], x["site"], x["metric"], x["finding"]) == ("federated", "journal", "auroc", MACRO)
    ]
    assert [cell.value for _, cell in run.history("federated", "auroc", MACRO, "journal")] == want
    assert run.final("federated", "auroc", MACRO, "journal").value == want[-1]


def test_local_is_the_mean_centrally_and_the_own_model_at_a_site(tmp_path):
    rows = [
        line(cohort="local", trained_on="a", value=0.6),
        line(cohort="local", trained_on="b", value=0.8),
        line(cohort="local", trained_on="a", site="a", value=0.9),
        line(cohort="local", trained_on="b", site="a", value=0.1),
        line(value=0.7),
    ]
    run = folder_with(tmp_path / "r", rows)
    whole = run.final("local", "auroc", MACRO)
    assert (whole.value, whole.models, whole.least, whole.most, whole.low) == (
        pytest.approx(0.7),
        2,
        0.6,
        0.8,
        None,
    )
    assert run.final("local", "auroc", MACRO, "a").value == 0.9
    assert run.final("local", "auroc", MACRO, "b").value is None
    stated = line(cohort="local", trained_on=None, value=0.7, low=0.65, high=0.75)
    run = folder_with(tmp_path / "s", [*rows, stated])
    assert run.final("local", "auroc", MACRO) == Cell(0.7, 0.65, 0.75, None, None, None, 2, 0.6, 0.8)
    rows[1]["value"] = None
    assert folder_with(tmp_path / "t", rows).final("local", "auroc", MACRO).value is None


def test_last_round_only(tmp_path):
    """A site that did not answer in the last round has no last value, not an old one."""
    rows = [line(1, site="a"), line(1, site="b"), line(1), line(2, site="a", value=0.6), line(2, value=0.7)]
    run = folder_with(tmp_path / "r", rows)
    assert run.final("federated", "auroc", MACRO, "a").value == 0.6
    assert run.final("federated", "auroc", MACRO, "b").value is None
    assert len(run.history("federated", "auroc", MACRO, "b")) == 1


def test_results_go_before_lines_cohort_by_cohort(tmp_path):
    rows = [line(1, value=0.5), line(1, cohort="pooled", value=0.9)]
    run = folder_with(tmp_path / "r", rows, {"final": [line(1, value=0.55)]})
    assert run.final("federated", "auroc", MACRO).value == 0.55
    assert run.final("pooled", "auroc", MACRO).value == 0.9


def test_rounds_run_on_over_phases(tmp_path):
    rows = [line(0), line(1), line(2), line(0, phase="b"), line(1, phase="b", value=0.8)]
    run = folder_with(tmp_path / "r", rows)
    assert run.moments == {("a", 0): 0, ("a", 1): 1, ("a", 2): 2, ("b", 0): 2, ("b", 1): 3}
    assert [x for x, _ in run.history("federated", "auroc", MACRO)] == [0, 1, 2, 3]
    assert run.final("federated", "auroc", MACRO).value == 0.8


def test_without_central_scores_sites_are_averaged(tmp_path):
    rows = [line(site="a", value=0.6, n=10, positives=2), line(site="b", value=0.9, n=30, positives=5)]
    run = folder_with(tmp_path / "r", rows)
    assert not run.central
    cell = run.overall("federated", "auroc", MACRO)
    assert (cell.value, cell.n, cell.positives, cell.models) == (pytest.approx(0.75), 40, 7, 2)
    assert "mean over sites" in run.where
    assert run.overall_history("federated", "auroc", MACRO) == [(1.0, cell)]


@pytest.mark.parametrize(
    ("difference", "low", "high", "word"),
    [
        (0.1, 0.02, 0.2, "gained"),
        (-0.1, -0.2, -0.02, "lost"),
        (0.1, -0.02, 0.2, "no clear difference"),
        (0.1, None, None, "higher, no interval"),
        (-0.1, None, None, "lower, no interval"),
        (None, None, None, "not judged (suppressed: fewer than 5)"),
    ],
)
def test_verdicts(difference, low, high, word):
    gain = Gain("a", MACRO, 0.5, 0.6, None, difference, low, high, "suppressed: fewer than 5")
    assert gain.verdict == word


def test_gains_from_lines_have_no_interval(tmp_path):
    rows = [line(site="a", value=0.8), line(cohort="local", site="a", trained_on="a", value=0.7), line()]
    (gain,) = folder_with(tmp_path / "r", rows).gains
    assert (gain.site, gain.difference, gain.low) == ("a", pytest.approx(0.1), None)


def test_damage_is_named_and_the_rest_is_read(tmp_path):
    InventedRun(tmp_path).describe("running")
    whole = json.dumps(line())
    (tmp_path / "metrics.jsonl").write_text(f'{whole}\n{{"phase": "a"}}\n[1]\n\n{whole[:20]}')
    (tmp_path / "results.json").write_text("[")
    (tmp_path / "events.jsonl").write_bytes(b'\xff\xfe\n{"event": "refused"}\n')
    run = read_run(tmp_path)
    assert len(run.lines) == 1 and len(run.events) == 1
    assert run.problems == (
        "results.json: not readable as JSON (JSONDecodeError)",
        "metrics.jsonl: 1 of 4 lines are not valid JSON; they are left out",
        "metrics.jsonl: 2 of 3 lines lack phase, round, cohort, site or metric",
        "events.jsonl: 1 of 2 lines are not valid JSON; they are left out",
    )
    (tmp_path / "run.yaml").write_text("a: [")
    assert read_run(tmp_path).problems[0].startswith("run.yaml: line 1 not valid YAML")
    with pytest.raises(FileNotFoundError, match="no such run folder"):
        read_run(tmp_path / "none")


def test_numbers_are_finite_numbers():
    assert [number(x) for x in (1, 2.5, True, "3", None, float("nan"), float("inf"), [1])] == [
        1.0,
        2.5,
        *[None] * 6,
    ]


scalar = st.none() | st.booleans() | st.integers(-9, 10**12) | st.floats() | st.text(max_size=5) | st.just([{}])
KEYS = (
    "phase",
    "round",
    "cohort",
    "site",
    "trained_on",
    "metric",
    "finding",
    "value",
    "low",
    "high",
    "n",
    "positives",
)
bent = st.lists(st.tuples(st.integers(0, 30), st.sampled_from(KEYS), scalar), max_size=12)
TOP = (
    "run",
    "name",
    "started",
    "finished",
    "status",
    "config",
    "versions",
    "sites",
    "final",
    "gain",
    "error",
    "seconds",
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bent, st.dictionaries(st.sampled_from((*TOP, "rounds", "peak_memory_mb", "bytes_per_round")), scalar))
def test_no_content_breaks_the_page(tmp_path, changes, top):
    """Whatever stands in the files, reading and rendering end without an exception."""
    rows = [
        line(turn, cohort, site, metric, finding, 0.7, low=0.6, high=0.8, n=9, positives=3)
        | {"trained_on": "a" if cohort == "local" else None}
        for turn in (1, 2)
        for cohort in ("federated", "local")
        for site in ("central", "a")
        for metric, finding in (("auroc", MACRO), ("auroc", "Edema"), ("ece", MACRO), ("loss", None))
    ]
    for position, key, value in changes:
        rows[position][key] = value
    text = json.dumps({**top, "sites": top.get("sites") or [{"name": "a", "n_train": 3}]})
    (tmp_path / "run.yaml").write_text(text)
    (tmp_path / "events.jsonl").write_text(json.dumps({"event": top.get("run"), "time": top.get("started")}))
    run = folder_with(tmp_path, rows, top)
    page = render(run)
    assert page.endswith("</html>\n")
    for site in run.sites:
        assert np.isfinite(run.final("federated", "auroc", MACRO, site).value or 0.0)
