"""Address, certificate and keys: what is said agrees with what a TLS client would do, and names every fault."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from client.preflight import server as module
from client.preflight.outcome import Check, Level
from client.preflight.server import check_server
from client.site_config import ServerAddress

HERE = "localhost"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ca(tmp_path, authority) -> Path:
    path = tmp_path / "ca.crt"
    path.write_bytes(authority.pem)
    return path


def look(port: int, ca: Path | None, host: str = HERE, key: Path | None = None) -> list[Check]:
    return list(check_server(ServerAddress(address=f"{host}:{port}", ca=ca, node_key=key)))


def of(found: list[Check], name: str) -> list[Check]:
    return [check for check in found if check.name == name]


def faults(found: list[Check], level: Level = Level.ERROR) -> list[Check]:
    return [check for check in found if check.level is level and check.name != "node key"]


def a_client_connects(port: int, ca: Path, host: str = HERE) -> bool:
    """The independent judge: a plain TLS client with the same authority."""
    try:
        with (
            socket.create_connection((host, port), 5) as plain,
            ssl.create_default_context(cafile=ca).wrap_socket(plain, server_hostname=host),
        ):
            return True
    except ssl.SSLError:
        return False


def test_a_good_server_is_good(tls_server, make, authority, ca):
    port = tls_server(make("hub", authority, hosts=(HERE, "127.0.0.1")))
    for host in (HERE, "127.0.0.1"):
        found = look(port, ca, host)
        assert faults(found) == faults(found, Level.WARNING) == []
        assert "TLSv1.3" in of(found, "server")[0].text
        assert of(found, "certificate")[0].level is Level.OK
        assert a_client_connects(port, ca, host)


WRONG = {
    "expired": (dict(days=(-30, -2)), ("expired on",)),
    "not yet valid": (dict(days=(2, 30)), ("check the clock",)),
    "another host": (
        dict(hosts=("hub.example.org", "10.1.2.3")),
        ("for hub.example.org, 10.1.2.3, not for localhost",),
    ),
    "no host": (dict(hosts=()), ("no host at all",)),
    "another authority": (dict(by="stranger"), ("issued by 'a stranger'",)),
    "self-signed": (dict(by=None), ("self-signed",)),
    "all at once": (
        dict(by="stranger", days=(-30, -2), hosts=("hub.example.org",)),
        ("expired on", "not for localhost", "issued by 'a stranger'"),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_fault_is_named_and_no_other(case, tls_server, make, authority, ca):
    settings, words = WRONG[case]
    signer = {"stranger": make("a stranger", authority=True), "ours": authority, None: None}[settings.get("by", "ours")]
    more = {k: v for k, v in settings.items() if k != "by"}
    port = tls_server(make("hub", signer, **{"hosts": (HERE,), **more}))
    assert not a_client_connects(port, ca)
    found = faults(look(port, ca))
    assert [check.name for check in found] == ["certificate"] * len(words)
    for word in words:
        assert sum(word in check.text for check in found) == 1, word


@pytest.mark.parametrize(("days", "level"), [(29.5, Level.WARNING), (30.5, Level.OK), (0.5, Level.WARNING)])
def test_expiry_is_announced_thirty_days_ahead(days, level, tls_server, make, authority, ca):
    port = tls_server(make("hub", authority, hosts=(HERE,), days=(-100, days)))
    found = of(look(port, ca), "certificate")
    assert [check.level for check in found] == [level]
    assert level is Level.OK or f"in {int(days)} days" in found[0].text


def test_an_authority_that_expired_or_soon_will(tls_server, make, tmp_path):
    path = tmp_path / "ca.crt"
    for days, level in ((-1.0, Level.ERROR), (10.0, Level.WARNING)):
        old = make("old", authority=True, days=(-100, days))
        path.write_bytes(old.pem)
        port = tls_server(make("hub", old, hosts=(HERE,)))
        found = look(port, path)
        assert of(found, "ca")[0].level is level
        assert bool(faults(found)) is not a_client_connects(port, path)


def test_an_authority_in_between(tls_server, make, authority, ca):
    between = make("between", authority, authority=True)
    leaf = make("hub", between, hosts=(HERE,))
    assert faults(look(tls_server(leaf), ca)) == []
    forgotten = type(leaf)(leaf.certificate, leaf.key, leaf.pem)
    assert "issued by 'between'" in faults(look(tls_server(forgotten), ca))[0].text


def test_a_certificate_in_between_that_expired_is_not_kept_quiet(tls_server, make, authority, ca):
    between = make("between", authority, authority=True, days=(-100, -1))
    port = tls_server(make("hub", between, hosts=(HERE,)))
    assert not a_client_connects(port, ca)
    assert "expired" in faults(look(port, ca))[0].text


def test_a_server_that_is_its_own_authority(tls_server, make, tmp_path):
    own = make("hub", hosts=(HERE,), authority=True)
    (tmp_path / "ca.crt").write_bytes(own.pem)
    port = tls_server(own)
    assert a_client_connects(port, tmp_path / "ca.crt")
    assert faults(look(port, tmp_path / "ca.crt")) == []


def test_without_a_file_the_systems_authorities_decide(tls_server, make, authority):
    found = faults(look(tls_server(make("hub", authority, hosts=(HERE,))), None))
    assert len(found) == 1 and "authority of this system" in found[0].text


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "nobody listens on port" in of(look(port, None), "server")[0].text


def test_a_server_that_speaks_plain_text(odd_server, ca):
    def talk(connection):
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    found = faults(look(odd_server(talk), ca))
    assert len(found) == 1 and "does not speak TLS" in found[0].text


def test_a_server_that_hangs_up(odd_server, ca):
    assert "does not speak TLS" in faults(look(odd_server(lambda connection: None), ca))[0].text


def test_a_server_that_says_nothing_costs_little_time(odd_server, ca, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.3)

    def talk(connection):
        connection.recv(10_000)
        time.sleep(0.5)

    begun = time.monotonic()
    assert "does not speak TLS" in faults(look(odd_server(talk), ca))[0].text
    assert time.monotonic() - begun < 3


def test_a_server_of_a_protocol_too_old(odd_server, ca):
    """A fatal alert 70, protocol_version, is TLS all the same."""

    def talk(connection):
        connection.recv(10_000)
        connection.sendall(bytes([21, 3, 1, 0, 2, 2, 70]))
        connection.recv(1)

    text = faults(look(odd_server(talk), ca))[0].text
    assert "TLS cannot be set up" in text and "PROTOCOL_VERSION" in text


@pytest.mark.parametrize(
    ("failure", "word"),
    [
        (socket.gaierror(-2, "Name or service not known"), "is not known here"),
        (TimeoutError(), "firewall"),
        (OSError(113, "No route to host"), "No route to host"),
    ],
)
def test_a_server_that_cannot_be_reached(failure, word, monkeypatch):
    def refuse(*_):
        raise failure

    monkeypatch.setattr(module.socket, "create_connection", refuse)
    found = of(look(8443, None, "hub.example.org"), "server")
    assert [check.level for check in found] == [Level.ERROR] and word in found[0].text


def test_a_proxy_in_the_environment_is_told(tls_server, make, authority, ca, monkeypatch):
    port = tls_server(make("hub", authority, hosts=(HERE,)))
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "example.org")
    assert "NO_PROXY" in faults(look(port, ca), Level.WARNING)[0].text
    monkeypatch.setenv("NO_PROXY", HERE)
    assert faults(look(port, ca), Level.WARNING) == []


def test_authorities_that_are_none(tmp_path, make, authority, tls_server):
    port = tls_server(make("hub", authority, hosts=(HERE,), days=(-9, -1)))
    path = tmp_path / "ca.crt"
    for content in (None, b"", b"hello", authority.certificate.public_bytes(Encoding.DER), authority.key_pem):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        found = look(port, path)
        assert of(found, "ca")[0].level is Level.ERROR, content
        assert "expired" in of(found, "certificate")[0].text  # what can be judged without it is


def test_an_authority_with_its_private_key_is_told(tmp_path, authority, make, tls_server):
    path = tmp_path / "ca.crt"
    path.write_bytes(authority.pem + authority.key_pem)
    found = look(tls_server(make("hub", authority, hosts=(HERE,))), path)
    assert faults(found) == [] and "private key" in faults(found, Level.WARNING)[0].text


def node_key(key, form: PrivateFormat = PrivateFormat.OpenSSH) -> bytes:
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


EC = ec.generate_private_key(ec.SECP384R1())


@pytest.mark.parametrize(
    ("content", "mode", "word"),
    [
        (node_key(EC), 0o600, None),
        (node_key(EC), 0o640, "chmod 600"),
        (node_key(EC, form=PrivateFormat.PKCS8), 0o600, "not a private key in OpenSSH form"),
        (node_key(ed25519.Ed25519PrivateKey.generate()), 0o600, "not an elliptic-curve key"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", 0o600, "ssh-keygen"),
        (b"", 0o600, "ssh-keygen"),
        (None, 0o600, "no such file"),
    ],
)
def test_the_sites_own_key(content, mode, word, tmp_path):
    path = tmp_path / "node"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    found = of(look(1, None, key=path), "node key")
    assert [check.level for check in found] == [Level.ERROR if word else Level.OK]
    assert word is None or word in found[0].text


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
@pytest.mark.parametrize(("phrase", "level"), [("", Level.OK), ("a passphrase", Level.ERROR)])
def test_the_advice_works_and_a_passphrase_does_not(phrase, level, tmp_path):
    path = tmp_path / "node"
    command = ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", phrase, "-f", str(path)]
    subprocess.run(command, check=True, timeout=30, stdin=subprocess.DEVNULL)
    assert [check.level for check in of(look(1, None, key=path), "node key")] == [level]


def test_no_server_is_said_once():
    found = list(check_server(None))
    assert [(check.name, check.level) for check in found] == [("server", Level.WARNING)]
