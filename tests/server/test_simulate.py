"""The real thing: Flower's own server, Ray actors, `fedcxr-server simulate`, on a tiny store."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT
from tests.world import write_plan

SERVER = [str(Path(sys.executable).with_name("fedcxr-server"))]


def run(*words, cwd=None, **kw):
    return subprocess.run([*SERVER, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=420, **kw)


def flower_processes():
    names = ("flower-superlink", "flwr-simulation", "raylet", "gcs_server", "flower-superexec")
    return {
        p.pid
        for p in psutil.process_iter(["name", "cmdline"])
        if any(n in " ".join(p.info["cmdline"] or [])[:400] for n in names)
    }


def test_simulation_succeeds_from_any_folder_and_leaves_nothing_running(tmp_path, tiny_store):
    """Started in a folder that holds a package called `client`: stock Flower would import that one."""
    trap = tmp_path / "elsewhere"
    (trap / "client").mkdir(parents=True)
    (trap / "client" / "__init__.py").write_text("raise RuntimeError('stale code from the working directory')")
    before = flower_processes()
    plan = write_plan(tmp_path / "plan.yaml")
    done = run("simulate", "-c", plan, "-d", tiny_store, "--out", tmp_path / "out", "--json", cwd=trap)
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    folder = Path(answer["folder"])
    assert answer["status"] == "completed" and answer["rounds"] == 2 and answer["peak_memory_mb"] > 100
    assert (folder / "report.html").exists()
    assert flower_processes() <= before, "the daemon or Ray outlived the command"
    listed = json.loads(run("runs", "--out", tmp_path / "out", "--json").stdout)
    assert [r["status"] for r in listed] == ["completed"]


def test_a_simulation_that_is_asked_to_end_leaves_nothing_running(tmp_path, tiny_store):
    before = flower_processes()
    plan = write_plan(tmp_path / "plan.yaml")
    command = [*SERVER, "simulate", "-c", plan, "-d", tiny_store, "--out", tmp_path / "out"]
    running = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not flower_processes() - before and time.monotonic() < end:
        time.sleep(0.1)
    ours = flower_processes() - before
    assert ours
    running.terminate()
    assert running.wait(60) == 128 + signal.SIGTERM
    assert not flower_processes() & ours


@pytest.mark.slow
def test_failing_run_exits_1_with_its_reason(tmp_path, tiny_store):
    plan = write_plan(tmp_path / "plan.yaml", federation__min_sites=7)
    done = run("simulate", "-c", plan, "-d", tiny_store, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "3 of at least 7 sites" in done.stderr
    results = json.loads(next((tmp_path / "out").glob("*/results.json")).read_text())
    assert results["status"] == "failed"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("-c", "no-such-plan"), "no such file"),
        (("-c", "real"), "data: missing"),
        (("-c", "real", "-d", "/no/such/folder"), "no such folder"),
        (("-s", "phases.0.local.lrr=1"), "did you mean 'lr'"),
        (("-s", "phases.0.local.steps=3"), "exactly one of the two"),
        (("-s", "arms=[local]"), "'federated' is missing"),
    ],
)
def test_what_cannot_be_done_exits_2_before_anything_starts(tmp_path, words, text):
    done = run("simulate", "--out", tmp_path / "out", *words)
    assert done.returncode == 2 and text in " ".join(done.stderr.split()), done.stderr
    as_json = run("simulate", "--out", tmp_path / "out", "--json", *words)
    assert as_json.returncode == 2 and text in json.loads(as_json.stdout)["error"]
    assert not list((tmp_path / "out").glob("*/run.yaml"))


def test_nothing_is_sent_out(tmp_path, tiny_store):
    """In a network namespace whose only way out is a wire that we watch: no packet leaves, not even for a name.

    Negative control: one lookup and one connection of our own are seen on that wire.
    """
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("needs root, unshare and ip to make a network namespace")
    plan = write_plan(tmp_path / "plan.yaml", phases__0__rounds=1)
    command = [*SERVER, "simulate", "-c", str(plan), "-d", str(tiny_store), "--out", str(tmp_path / "out"), "--json"]
    script = ROOT / "tests" / "server" / "watch_wire.py"
    done = subprocess.run(
        ["unshare", "--net", "--mount", sys.executable, str(script), *command],
        capture_output=True,
        text=True,
        timeout=420,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["command_exit"] == 0
    assert seen["control_packets"] > 0, "the wire does not see packets: this test proves nothing"
    assert seen["packets"] == [], seen["packets"]


def test_plain_flwr_run_in_a_checkout(tmp_path, tiny_store):
    """`flwr run .` as its documentation has it, with installation at run start left on, and no network."""
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("needs root, unshare and ip to make a network namespace")
    import tomllib

    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".venv", ".git", "runs", "__pycache__"))
    plan = write_plan(tmp_path / "plan.yaml")
    settings = f"config='{plan}' data='{tiny_store}' out='{tmp_path / 'out'}'"
    script = (
        "set -e; ip link set lo up; "
        f'cd {checkout}; {Path(sys.executable).with_name("flwr")} run . --stream --run-config "$SETTINGS"; '
        f"{Path(sys.executable).with_name('flwr')} ls --format json > {tmp_path / 'ls.json'}; "
        "pkill -f '[f]lower-superlink.*--port 39917' || true"
    )
    env = {
        **os.environ,
        "FLWR_HOME": str(tmp_path / "home"),
        "SETTINGS": settings,
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": "39917",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    for key in ("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", "PYTHONPATH"):
        env.pop(key, None)
    before = (checkout / "pyproject.toml").read_bytes()
    done = subprocess.run(
        ["unshare", "--net", "bash", "-c", script], env=env, capture_output=True, text=True, timeout=420
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    results = [json.loads(p.read_text()) for p in (tmp_path / "out").glob("*/results.json")]
    assert [r["status"] for r in results] == ["completed"], done.stdout[-3000:]
    assert (checkout / "pyproject.toml").read_bytes() == before and tomllib
    statuses = [r["status"] for r in json.loads((tmp_path / "ls.json").read_text())["runs"]]
    assert statuses == ["finished:completed"]
