"""The coordinator's small commands: help with an example, JSON, exit codes."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from server.cli import app
from tests.world import federate

runner = CliRunner()


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_store):
    return federate(tmp_path_factory.mktemp("cli"), tiny_store, arms=["federated", "local"])


@pytest.mark.parametrize("command", ["simulate", "compare", "runs", "report", "attention", "export"])
def test_every_command_explains_itself_with_an_example(command):
    found = runner.invoke(app, [command, "--help"])
    assert found.exit_code == 0 and "Example:" in found.stdout and "--json" in found.stdout


def test_runs_and_compare_speak_json(run):
    listed = json.loads(runner.invoke(app, ["runs", "--out", str(run.path.parent), "--json"]).stdout)
    assert [(r["status"], r["rounds"]) for r in listed] == [("completed", 2)]
    found = json.loads(runner.invoke(app, ["compare", str(run.path), "--json"]).stdout)
    assert {r["finding"] for r in found["findings"]} == {"macro", "Cardiomegaly", "Edema"}
    assert len(found["sites"]) == 4


def test_report_can_be_written_anew(run):
    (run.path / "report.html").unlink()
    found = runner.invoke(app, ["report", str(run.path), "--json"])
    assert found.exit_code == 0 and json.loads(found.stdout)["report"].endswith("report.html")
    assert (run.path / "report.html").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["runs", "--out", "/no/such"],
        ["compare", "/no/such"],
        ["report", "/no/such"],
        ["export", "--checkpoint", "/no/such", "--out", "/no/such/out"],
    ],
)
def test_what_is_not_there_exits_2(words):
    found = runner.invoke(app, words)
    assert found.exit_code == 2
    assert json.loads(runner.invoke(app, [*words, "--json"]).stdout)["error"]
