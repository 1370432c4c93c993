"""The trainer as a service: another process, a UNIX socket, no Flower; the same model to the last bit."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import torch
import yaml

from client.policy import Policy
from client.service import ask_service, serve
from client.trainer import Site, SiteTrainer
from models.checkpoint import load
from models.studies.store import Store
from strategies.messages import Answer, Ask, Code, Kind, Refusal
from strategies.records import from_record, to_record
from tests.conftest import ROOT
from tests.world import plan_values, write_store

SITES = ("a", "b")
FRACTIONS = {"train": 0.6, "validation": 0.4, "test": 0.0}


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    """Two hospitals with a store each."""
    root = tmp_path_factory.mktemp("hospitals")
    return {name: write_store(root / name / "store", patients=25, sources=(name,)) for name in SITES}


def federation(folder, client, node_configs):
    """The deployment path: no simulation section, sites name themselves."""
    from server.app import FlowerCourier, execute
    from server.folder import RunFolder
    from strategies.launch import launch
    from tests.inprocess import InProcessGrid

    folder.mkdir()
    values = plan_values()
    del values["simulation"]
    (folder / "plan.yaml").write_text(yaml.safe_dump(values))
    run_config = {"config": str(folder / "plan.yaml"), "out": str(folder / "out")}
    launched = launch(run_config)
    run = RunFolder.create(folder / "out" / "run", launched.plan)
    execute(launched, FlowerCourier(InProcessGrid(client, len(SITES), run_config, node_configs)), run)
    return run


def start_service(folder, name, store):
    """`fedcxr-site serve` in a process where Flower cannot be imported."""
    site = {
        "name": name,
        "store": str(store),
        "secret": "keys/secret",
        "state": "state",
        "socket": "run/trainer.sock",
        "device": "cpu",
        "fractions": FRACTIONS,
        "policy": {"min_cell": 2},
    }
    folder.mkdir()
    (folder / "site.yaml").write_text(yaml.safe_dump(site))
    code = "import sys; sys.modules['flwr'] = None; from client.cli import main; main()"
    # As many threads as here: sums of floats depend on how they are split.
    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen([sys.executable, "-c", code, "serve", str(folder / "site.yaml")], cwd=ROOT, env=env)
    socket = folder / "run" / "trainer.sock"
    end = time.monotonic() + 120
    while not socket.exists():
        assert process.poll() is None, "the service ended before it listened"
        assert time.monotonic() < end, "the service did not listen in time"
        time.sleep(0.05)
    return process, socket


def test_federation_through_the_service_is_bit_for_bit_the_one_in_process(tmp_path, hospitals):
    from client.app import carry

    trainers = {}
    for name, path in hospitals.items():
        store = Store.open(path)
        splits = store.split(FRACTIONS)
        rows = {s: (splits == s).nonzero()[0] for s in FRACTIONS}
        trainers[name] = SiteTrainer(Site(name, store, rows, tmp_path / "state" / name, Policy(min_cell=2)))

    def in_process(message, context):
        from flwr.app import Message

        answer = trainers[context.node_config["site"]].handle(from_record(Ask, message.content))
        return Message(to_record(answer), reply_to=message)

    direct = federation(tmp_path / "direct", in_process, [{"site": name} for name in SITES])
    services = [start_service(tmp_path / name, name, path) for name, path in hospitals.items()]
    try:
        served = federation(tmp_path / "served", carry, [{"trainer-socket": str(socket)} for _, socket in services])
    finally:
        for process, _ in services:
            process.terminate()
        codes = [process.wait(timeout=20) for process, _ in services]
    assert codes == [0, 0]
    one, two = (load(run.checkpoints()[-1] / "model.safetensors") for run in (direct, served))
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
    start = load(direct.checkpoints()[0] / "model.safetensors")
    assert not all(torch.equal(one[k], start[k]) for k in one), "nothing was trained"
    strip = lambda run: [x for x in run.lines("metrics.jsonl") if not x["metric"].startswith("seconds")]
    assert strip(direct) == strip(served)
    ledger = (tmp_path / "a" / "state" / "egress.jsonl").read_text().splitlines()
    assert len(ledger) == 4  # hello, two rounds, the last evaluation


class Echo:
    """Answers with what it was sent."""

    def handle(self, ask):
        return Answer(site=ask.site, examples=1, tensors=ask.tensors, bf16=ask.bf16)


def an_ask(**values):
    return Ask(kind=Kind.TRAIN, run="r", site="s", seed=0, config_hash="c", code_hash="h", **values)


def test_messages_larger_than_grpcs_limit_pass(tmp_path):
    import numpy as np

    (tmp_path / "run").mkdir(mode=0o700)
    server = serve(Echo(), tmp_path / "run" / "s.sock")
    big = np.random.default_rng(0).random(3_000_000).astype(np.float32)  # 12 MB; gRPC stops at 4 MB a message
    answer = ask_service(str(tmp_path / "run" / "s.sock"), an_ask(tensors={"w": big}))
    server.stop(0)
    assert (answer.tensors["w"] == big).all()


def test_socket_is_this_users_alone(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    server = serve(Echo(), folder / "s.sock")
    assert (folder / "s.sock").stat().st_mode & 0o777 == 0o600
    server.stop(0)
    folder.chmod(0o755)
    with pytest.raises(OSError, match="0700"):
        serve(Echo(), folder / "t.sock")


def test_trainer_that_is_not_there_is_a_refusal(tmp_path):
    answer = ask_service(str(tmp_path / "none.sock"), an_ask())
    assert isinstance(answer.refusal, Refusal) and answer.refusal.code is Code.UNREACHABLE
