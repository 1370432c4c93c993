"""A federation of report encoders is judged: at the server, at every site, in results.json and on the page."""

from __future__ import annotations

import json

import numpy as np
import pytest

from client.ingest.keys import public_secret
from client.ingest.writer import StoreWriter
from models.evaluation.textual import METRICS
from server.compare import print_table
from server.report import write_report
from server.rundata import read_run
from tests.world import federate

SITES = ("north", "south", "west")
SIDES, PLACES = ("left", "right"), ("upper", "lower")


def write_reports(path):
    """Twelve patients at each of three sites, one report each."""
    rng, secret = np.random.default_rng(0), public_secret("tests")
    with StoreWriter(path, secret=secret, short_side=32) as writer:
        for site in SITES:
            for person in range(12):
                name, size = f"{site}-{person}", int(rng.integers(3, 40))
                side, place = rng.choice(SIDES), rng.choice(PLACES)
                findings = f"There is a {size} mm nodule in the {side} {place} lobe. No pneumothorax."
                findings += f" Small {side} pleural effusion."
                row = {kind: writer.key(kind, name) for kind in ("image", "patient", "study", "digest")}
                row |= {"source": site, "order": 0, "findings": findings}
                row["impression"] = f"{side.title()} {place} lobe nodule, {size} mm. Small {side} effusion."
                writer.add(row, rng.integers(0, 255, (16, 16), dtype=np.uint8))
        writer.finish()
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("text")
    scratch = {"width": 32, "heads": 4, "depth": 1, "vocabulary": 1200}
    local = {"steps": 2, "batch_size": 8, "lr": 0.001}
    contrast = {
        "name": "report_contrastive",
        "tasks": [{"name": "style"}, {"name": "summary"}],
        "houses": ["abbreviated"],
    }
    run = federate(
        base,
        write_reports(base / "store"),
        model={"text": {"scratch": scratch, "max_tokens": 64, "lora": {"rank": 2}, "language_head": True}},
        phases=[
            {"name": "mntp", "rounds": 1, "objective": {"name": "mntp"}, "local": local},
            {"name": "contrast", "rounds": 1, "objective": contrast, "local": local},
        ],
        nodes=1,  # sites in threads would draw their first weights from one generator
        arms=["federated", "local", "pooled"],
    )
    write_report(run.path)
    return run.path


def lines(folder, **wanted):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if all(line[key] == value for key, value in wanted.items())]


def test_every_round_of_both_phases_is_judged_at_the_server(folder):
    for phase, rounds in (("mntp", 1), ("contrast", 1)):
        for number in range(1, rounds + 1):
            found = lines(folder, phase=phase, round=number, cohort="federated", site="central")
            assert {line["metric"] for line in found} >= set(METRICS)
    row = lines(folder, phase="contrast", round=1, cohort="federated", site="central", metric="mc4")[0]
    assert row["finding"] == "macro" and 0 <= row["value"] <= 1 and row["n"] > 5


def test_every_site_judges_what_it_receives(folder):
    for site in SITES:
        found = lines(folder, phase="contrast", round=1, cohort="federated", site=site, metric="recall_at_1")
        assert {line["finding"] for line in found} == {"abbreviated", "summary", "macro"}
        assert lines(folder, phase="contrast", round=0, cohort="federated", site=site, metric="mc4")


def test_results_say_who_gained(folder):
    results = json.loads((folder / "results.json").read_text())
    assert results["status"] == "completed"
    assert {row["site"] for row in results["gain"]} == {"central", *SITES}
    macro = next(row for row in results["gain"] if row["finding"] == "macro" and row["site"] == "central")
    assert macro["difference"] == pytest.approx(macro["federated"] - macro["local"], abs=1e-6)
    whole = lines(folder, phase="contrast", round=1, cohort="local", site="central", metric="mc4")
    each = [line["value"] for line in whole if line["trained_on"]]
    mean = next(line["value"] for line in whole if line["trained_on"] is None)
    assert len(each) == 3 and mean == pytest.approx(np.mean(each), abs=1e-6)


def test_the_page_shows_questions_and_no_films(folder, capsys):
    page = (folder / "report.html").read_text()
    for words in ("Questions on reports", "R@1, abbreviated to written out", "MC4 per round", "Mean R@1 per round"):
        assert words in page, words
    assert "AUROC of" not in page and "mean R@1 of" in page
    run = read_run(folder)
    assert run.text and run.headline == ("recall_at_1", "mean R@1") and not run.findings
    print_table([folder])
    shown = " ".join(capsys.readouterr().out.split())
    assert "mean R@1" in shown
