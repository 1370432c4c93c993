"""A whole Flower simulation from one call, with a true answer at the end.

``flwr run`` exits 0 even when the run fails, starts a daemon that nobody stops, and lets that daemon import code from the
folder it was started in. Here the daemon is ours: an own port and an empty working folder, stopped with all its children
at the end; success means that Flower says so *and* that the run wrote its own results.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import tomli_w

from models.config import ConfigError
from server.folder import RunFolder, new_run_id
from server.quiet import QUIET
from strategies.code import PACKAGES, ROOT
from strategies.launch import launch

HEALTH_SECONDS = 60.0
STATUS_EVERY = 60.0


class SimulationFailed(RuntimeError):
    """The simulation did not come up, or its run did not succeed."""


@dataclass(frozen=True)
class Simulated:
    """How a simulation went. ``results`` is the run's results.json."""

    folder: Path
    results: dict[str, Any]
    seconds: float

    @property
    def ok(self) -> bool:
        return self.results.get("status") == "completed"


def find_app() -> Path:
    """The folder that Flower bundles: the checkout this code lies in.

    Raises:
        ConfigError: fedcxr was installed without its checkout.
    """
    if (ROOT / "pyproject.toml").is_file() and (ROOT / "configs").is_dir():
        return ROOT
    raise ConfigError(
        "fedcxr is installed without its checkout, and Flower bundles a checkout; "
        "install with `pip install -e .` in one, or use `flwr run FOLDER`"
    )


def simulate(
    run_config: Mapping[str, Any],
    *,
    workers: int = 0,
    resume: str = "",
    on_change: Callable[[RunFolder], None] = lambda _: None,
) -> Simulated:
    """Run a plan with virtual sites and wait for its end.

    Args:
        run_config: config, data, out, seed, rounds, set (see ``strategies.launch``); folders are absolute.
        workers: sites that train at the same time; 0 for one a core.
        resume: id of an interrupted run in ``out``.
        on_change: called a few times a second with the run's folder, to show progress.

    Raises:
        ConfigError: before anything is started.
        SimulationFailed: Flower did not come up or took the run away.
    """
    began = time.monotonic()
    launched = launch(run_config)
    if launched.plan.simulation is None:
        raise ConfigError(f"plan {launched.plan.name!r} has no 'simulation' section: its sites are real hospitals")
    app = find_app()
    run = resume or new_run_id(launched.plan.name)
    launched.out.mkdir(parents=True, exist_ok=True)
    workers = workers or os.cpu_count() or 1
    values = {**run_config, "out": str(launched.out), "run": run, "resume": resume}
    folder = RunFolder(launched.out / run)
    with _superlink(launched.out / "logs" / f"{run}.log") as flower:
        flower_id = flower.start_run(_staged(app, flower.home), values, workers)
        results = _wait(flower, flower_id, folder, on_change)
    return Simulated(folder.path, results, time.monotonic() - began)


def _staged(app: Path, home: Path) -> Path:
    """A copy of what the bundle needs. Flower looks at every file below the folder it bundles, also at the tens of
    thousands of a virtual environment that lies in a checkout; the copy takes milliseconds, that look takes seconds.
    """
    stage = home / "fedcxr"
    unneeded = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in (*PACKAGES, "configs"):
        shutil.copytree(app / name, stage / name, ignore=unneeded)
    shutil.copy(app / "pyproject.toml", stage)
    return stage


def _wait(flower: _Flower, flower_id: str, folder: RunFolder, on_change: Callable[[RunFolder], None]) -> dict[str, Any]:
    """Until the run wrote its results and Flower agrees, or Flower says that it is over without them."""
    started, asked = time.time(), time.monotonic()
    while True:
        results = _results(folder.path, started)
        on_change(folder)
        if results is not None:
            status = flower.final_status(flower_id) if results["status"] == "completed" else "finished:failed"
            if results["status"] == "completed" and status != "finished:completed":
                raise SimulationFailed(f"the run wrote its results, but Flower reports {status}; see {flower.log}")
            return results
        if flower.process.poll() is not None:
            raise SimulationFailed(f"Flower's server ended with code {flower.process.returncode}; see {flower.log}")
        if time.monotonic() - asked > STATUS_EVERY:
            status, asked = flower.status(flower_id), time.monotonic()
            if status.startswith("finished") and _results(folder.path, started) is None:
                reason = flower.details(flower_id)
                raise SimulationFailed(f"the run ended ({status}) without results: {reason or 'no reason given'}")
        time.sleep(0.2)


def _results(path: Path, since: float) -> dict[str, Any] | None:
    """results.json, unless it is left over from the run that is being resumed."""
    file = path / "results.json"
    try:
        if file.stat().st_mtime < since - 1:
            return None
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


class _Flower:
    """Our own Flower server in simulation mode."""

    def __init__(self, process: subprocess.Popen[bytes], home: Path, environment: dict[str, str], log: Path) -> None:
        self.process, self.home, self.environment, self.log = process, home, environment, log

    def command(self, *words: str) -> dict[str, Any]:
        """A ``flwr`` command with JSON output."""
        flwr = Path(sys.executable).with_name("flwr")
        done = subprocess.run(
            [str(flwr), *words, "--format", "json"],
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        try:
            return json.loads(done.stdout[done.stdout.index("{") :])
        except ValueError:
            tail = (done.stderr or done.stdout).strip()[-500:]
            raise SimulationFailed(f"flwr {words[0]} gave no answer (exit {done.returncode}): {tail}") from None

    def start_run(self, app: Path, values: Mapping[str, Any], workers: int) -> str:
        settings = " ".join(f"{key}={json.dumps(value)}" for key, value in values.items())
        gpus = f" client-resources-num-gpus={1 / workers:.4f}" if _has_gpu() else ""
        simulation = f"num-supernodes={max(workers, 1)} client-resources-num-cpus=1{gpus}"
        answer = self.command("run", str(app), "local", "--run-config", settings, "--federation-config", simulation)
        if not answer.get("success"):
            raise SimulationFailed(f"Flower refused the run: {answer.get('error-message') or answer}")
        return str(answer["run-id"])

    def _run(self, flower_id: str) -> dict[str, Any]:
        answer = self.command("ls", "local", "--run-id", flower_id)
        runs = answer.get("runs") or [{}]
        return runs[0]

    def status(self, flower_id: str) -> str:
        """What Flower says of the run; ``unknown`` also where a busy machine leaves no time to ask."""
        try:
            return str(self._run(flower_id).get("status", "unknown"))
        except subprocess.TimeoutExpired:
            return "unknown"

    def details(self, flower_id: str) -> str:
        return str(self._run(flower_id).get("status-details", ""))

    def final_status(self, flower_id: str, patience: float = 30.0) -> str:
        """The status once it is final: the run writes its results a moment before Flower notices its end."""
        end = time.monotonic() + patience
        while not (status := self.status(flower_id)).startswith("finished") and time.monotonic() < end:
            time.sleep(0.5)
        return status


@contextmanager
def _superlink(log: Path):
    """Start Flower's server on a free port in an empty folder; at the end stop it and everything it started."""
    log.parent.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="fedcxr-flower-"))
    port = _free_port()
    # Flower starts its helpers by name: ours must be the first it finds.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    # A home of its own: Ray asks the cloud's metadata address who hosts this machine, even with usage reports off,
    # unless a file in the home says so.
    (home / "ray_bootstrap_config.yaml").write_text("provider: {type: local}\n")
    environment = {**os.environ, **QUIET, "HOME": str(home), "FLWR_HOME": str(home), "PATH": path}
    environment.pop("PYTHONPATH", None)  # it would put other code before the bundle's
    (home / "config.toml").write_text(
        tomli_w.dumps({"superlink": {"default": "local", "local": {"address": f"127.0.0.1:{port}", "insecure": True}}})
    )
    (home / "work").mkdir()
    command = [
        str(Path(sys.executable).with_name("flower-superlink")),
        *("--insecure", "--simulation", "--isolation", "subprocess", "--host", "127.0.0.1", "--port", str(port)),
        *("--database", str(home / "state.db")),
    ]
    with log.open("ab") as out, _asked_to_end():
        process = subprocess.Popen(
            command, cwd=home / "work", env=environment, stdout=out, stderr=out, start_new_session=True
        )
        try:
            _until_healthy(process, port, log)
            yield _Flower(process, home, environment, log)
        finally:
            _stop(process)
            shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _asked_to_end():
    """SIGTERM ends this process by an exception, so that Flower and Ray do not go on without it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # a thread cannot take signals
        return

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _until_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + HEALTH_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SimulationFailed(f"Flower's server ended with code {process.returncode} at once; see {log}")
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=1, trust_env=False).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise SimulationFailed(f"Flower's server did not come up within {HEALTH_SECONDS:g} s; see {log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and all it started. Its children are listed first: Ray's detach from their parent as they end."""
    try:
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    except psutil.NoSuchProcess:
        family = []
    for member in family:
        _signal(member, signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=5)
    for member in alive:
        _signal(member, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=5)
    process.wait(timeout=10)


def _signal(member: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        member.send_signal(number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _has_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None
