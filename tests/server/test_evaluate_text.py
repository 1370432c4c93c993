"""fedcxr-server evaluate-text, as its user calls it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from models.config import build
from models.text.config import TextConfig
from server.cli import app
from tests.models.objectives.towers import REPORTS, report_store

SCRATCH = {"width": 32, "heads": 4, "depth": 2, "vocabulary": 1200}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "s"
    report_store(path, [*REPORTS, *((f"{f} Stable.", i) for f, i in REPORTS)])
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m"
    build(TextConfig, {"scratch": SCRATCH}).build().save(path)
    return path


def call(*words) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["evaluate-text", *map(str, words)])
    return done.exit_code, done.output


def test_a_folder_is_judged_and_told_as_json(store, folder):
    code, said = call("--model", folder, "--data", store, "--max-tokens", 64, "--replicates", 100, "--json")
    found = json.loads(said)
    assert code == 0 and found["reports"] == 2 * len(REPORTS) and found["max_tokens"] == 64
    rows = {(row["metric"], row["finding"]): row for row in found["results"]}
    for metric, finding in (
        ("recall_at_1", "abbreviated"),
        ("recall_at_10", "summary"),
        ("recall_at_1_diagonal", "summary"),
        ("mc4", "macro"),
        ("mc4_ties", "macro"),
        ("mc4_margin", "macro"),
        ("mc4_beats", "false_finding"),
        ("nearest_label_f1", "macro"),
    ):
        assert rows[metric, finding]["value"] is not None, metric
    assert rows["recall_at_1_diagonal", "summary"]["value"] <= rows["recall_at_1", "summary"]["value"]
    levels = [(p["noise"], p["level"], p["value"]) for p in found["curves"]]
    assert ("typing", 0.0, 1.0) in levels and {noise for noise, *_ in levels} == {"typing", "abbreviation"}


def test_the_tables_name_what_they_show(store, folder):
    code, said = call("--model", folder, "--data", store, "--max-tokens", 64, "--replicates", 100, "--split", "all")
    assert code == 0 and "mc4" in said and "95 % interval" in said and "typing" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "exactly one of --checkpoint"),
        (("--model", "M", "--checkpoint", "C"), "exactly one of --checkpoint"),
        (("--checkpoint", "nowhere"), "neither a run folder nor one of its checkpoints"),
        (("--model", "/nowhere/at/all"), "nowhere"),
        (("--model", "M", "--split", "train"), "one of all, validation, test"),
        (("--model", "M", "--clinical", "bleu"), "one of radgraph, ratescore, green, chexbert"),
    ],
)
def test_what_cannot_be_done_is_said(store, folder, words, says):
    words = [folder if word == "M" else word for word in words]
    code, said = call("--data", store, "--max-tokens", 64, "--json", *words)
    assert code == 2 and says in json.loads(said)["error"]


def test_a_missing_store_and_a_missing_scorer_are_said(tmp_path, store, folder, monkeypatch):
    import sys

    code, said = call("--model", folder, "--data", tmp_path / "none", "--json")
    assert code == 2 and json.loads(said)["error"]
    monkeypatch.setitem(sys.modules, "radgraph", None)
    code, said = call("--model", folder, "--data", store, "--clinical", "radgraph", "--json")
    assert code == 2 and "pip install radgraph" in json.loads(said)["error"]
