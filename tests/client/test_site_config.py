"""The site's YAML: every key is documented with its true default, and every mistake is named."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from client.site_config import ServerAddress, SiteConfig, load_site
from models.config import ConfigError, build, read_yaml, to_plain

EXAMPLE = Path(__file__).parents[2] / "configs" / "sites" / "example.yaml"


def flat(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return found


def write(folder: Path, text: str = "") -> Path:
    path = folder / "site.yaml"
    path.write_text("name: north\nstore: store\nsecret: keys/secret\nstate: state\n" + text)
    return path


def test_the_example_documents_every_key():
    documented = set(flat(read_yaml(EXAMPLE)))
    known = set(flat(to_plain(load_site(EXAMPLE))))
    assert documented == known
    assert {f.name for f in dataclasses.fields(SiteConfig)} <= {key.split(".")[0] for key in documented}


def test_the_example_states_the_true_defaults(tmp_path):
    given = flat(to_plain(load_site(EXAMPLE)))
    default = flat(to_plain(load_site(write(tmp_path))))
    own = ("name", "store", "secret", "state", "socket", "policy", "server")
    compared = {key for key in given if key.split(".")[0] not in own}
    assert len(compared) > 60
    assert {k: given[k] for k in compared} == {k: default[k] for k in compared}


def test_paths_are_relative_to_the_yaml(tmp_path):
    site = load_site(write(tmp_path, "server: {address: 'hub:1', ca: ca.crt, node_key: /abs/node}\nsocket: run/s\n"))
    assert site.store == tmp_path / "store" and site.socket == tmp_path / "run" / "s"
    assert site.server is not None
    assert site.server.ca == tmp_path / "ca.crt" and site.server.node_key == Path("/abs/node")
    assert site.index == tmp_path / "keys" / "secret.index"


@pytest.mark.parametrize(
    ("address", "host", "port"), [("hub.example.org:8443", "hub.example.org", 8443), ("[::1]:9", "::1", 9)]
)
def test_an_address_has_host_and_port(address, host, port):
    server = ServerAddress(address=address)
    assert (server.host, server.port) == (host, port)


@pytest.mark.parametrize("address", ["hub", "https://hub:1", "hub:0", "hub:70000", "hub:", ":1", "::1:9", "hub:1/x"])
def test_anything_else_is_no_address(address):
    with pytest.raises(ConfigError, match="host:port"):
        build(ServerAddress, {"address": address})


def test_all_mistakes_are_named_at_once(tmp_path):
    path = write(tmp_path, "device: gpu\nworkrs: 2\nreading: {gate: {views: [PB]}}\nserver: {address: hub}\n")
    with pytest.raises(ConfigError) as error:
        load_site(path)
    lines = str(error.value).splitlines()
    assert len(lines) == 4
    for part in ("device", "did you mean 'workers'", "PB", "host:port"):
        assert any(part in line for line in lines), part


def test_it_is_read_without_flower_and_network():
    code = (
        "import sys, socket; sys.modules['flwr'] = None; socket.socket.connect = None\n"
        f"from pathlib import Path; from client.site_config import load_site; print(load_site(Path({str(EXAMPLE)!r})).name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=EXAMPLE.parents[2], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout.strip()) == (0, "north"), done.stderr


def test_contradictions_are_named_at_once(tmp_path):
    path = write(tmp_path, "workers: -1\n")
    path.write_text(path.read_text().replace("north", "North!").replace("keys/secret", "store/secret"))
    with pytest.raises(ConfigError) as error:
        load_site(path)
    assert len(str(error.value).splitlines()) == 3
