"""All that is wrong is said at once, whatever else is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.preflight import Check, Level, preflight
from client.preflight import run as module
from models.config import ConfigError

KEYS = {"name": "north", "store": "store", "secret": "keys/secret", "state": "state", "device": "cpu", "workers": "1"}
NAMES = {
    "decoders", "config", "store", "secret", "index", "state", "socket", "disk", "memory", "device", "sandbox", "server",
}  # fmt: skip


def write(folder: Path, text: str = "", **keys: str | None) -> Path:
    (folder / "keys").mkdir(exist_ok=True, mode=0o700)
    path = folder / "site.yaml"
    path.write_text("".join(f"{k}: {v}\n" for k, v in {**KEYS, **keys}.items() if v is not None) + text)
    return path


def wrong(found: list[Check], level: Level = Level.ERROR) -> list[Check]:
    return [check for check in found if check.level is level]


def test_a_new_site_has_nothing_to_mend(tmp_path):
    found = list(preflight(write(tmp_path)))
    assert wrong(found) == []
    assert {check.name for check in found} == NAMES
    assert {p.name for p in tmp_path.iterdir()} == {"keys", "site.yaml"} and not list((tmp_path / "keys").iterdir())


def test_every_mistake_of_the_yaml_and_of_the_world_is_said_at_once(tmp_path):
    (tmp_path / "state").touch()
    text = "policy: {min_cel: 3, max_steps: many}\nsockt: run/s\nreports: {encoding: klingon}\n"
    found = list(preflight(write(tmp_path, text, device="gpu", secret="gone/secret")))
    said = [f"{check.name}: {check.text}" for check in wrong(found)]
    for word in (
        "did you mean 'min_cell'",
        "policy.max_steps",
        "did you mean 'socket'",
        "klingon",
        "device",
        "secret: ",
        "index: ",
        "state: ",
    ):
        assert sum(word in line for line in said) >= 1, word
    unchecked = {check.name for check in wrong(found, Level.WARNING) if "not checked" in check.text}
    assert unchecked == {"disk", "device", "reports"}
    assert {check.name for check in found} == NAMES | {"reports"}


def test_missing_keys_leave_the_others_checked(tmp_path):
    found = list(preflight(write(tmp_path, store=None, name=None)))
    assert {"name: missing" in c.text or "store: missing" in c.text for c in wrong(found)} == {True}
    assert len(wrong(found)) == 2
    assert next(c for c in found if c.name == "state").level is Level.OK
    assert "for want of a usable store" in next(c for c in found if c.name == "secret").text


@pytest.mark.parametrize("more", ["", "devise: cpu\n"])
def test_contradictions_are_said_once_whether_or_not_the_rest_is_right(tmp_path, more):
    found = list(preflight(write(tmp_path, more, name="Not-A-Name", secret="store/secret", workers="-2")))
    said = [check.text for check in wrong(found) if check.name == "config"]
    assert len(said) == 3 + bool(more)
    for word in ("Not-A-Name", "must lie outside the store", "workers -2"):
        assert sum(word in line for line in said) == 1, word


@pytest.mark.parametrize("content", [None, b"name: [", b"- a\n- b\n", b"name: x\nname: y\n", b"\xff\xfe"])
def test_a_yaml_that_cannot_be_read_is_no_check(tmp_path, content):
    path = tmp_path / "site.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError):
        list(preflight(path))


def test_an_empty_yaml_is_four_missing_keys(tmp_path):
    (tmp_path / "site.yaml").touch()
    said = [check.text for check in wrong(list(preflight(tmp_path / "site.yaml")))]
    assert len([line for line in said if "missing; this key is required" in line]) == 4


@pytest.mark.parametrize("failure", [PermissionError(13, "Permission denied", "/pacs/MRN123.dcm"), KeyError("MRN123")])
def test_a_check_that_breaks_says_so_and_hides_no_other(tmp_path, monkeypatch, failure):
    def broken(*_):
        raise failure
        yield

    checks = tuple((n, keys, broken if n == "store" else check) for n, keys, check in module._CHECKS)
    monkeypatch.setattr(module, "_CHECKS", checks)
    found = list(preflight(write(tmp_path)))
    assert [check.name for check in wrong(found)] == ["store"]
    assert {check.name for check in found} == NAMES and "MRN123" not in wrong(found)[0].text


def test_a_missing_decoder_is_said_even_though_the_configuration_needs_it(tmp_path):
    """In a process of its own, where the module really is not there."""
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['openjpeg'] = None\n"
        "from pathlib import Path; from client.preflight import preflight\n"
        f"for c in preflight(Path({str(write(tmp_path))!r})): print(c.level, c.name, c.text)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3], timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "error decoders pylibjpeg-openjpeg: cannot be loaded" in done.stdout
    assert "error config" in done.stdout


def test_reports_and_files_given_are_checked(tmp_path):
    (tmp_path / "pacs").mkdir()
    (tmp_path / "reports.csv").write_text("accession,body\n1,clear\n")
    found = list(preflight(write(tmp_path), tmp_path / "pacs", tmp_path / "reports.csv"))
    assert wrong(found) == []
    assert "0 files" in next(c for c in found if c.name == "disk").text
    assert next(c for c in found if c.name == "reports").level is Level.OK
