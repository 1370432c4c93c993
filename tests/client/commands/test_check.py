"""``fedcxr-site check``: exit codes, one JSON object, one line a finding."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _light(monkeypatch, request):
    """Torch costs seconds and is tried in the process of its own."""
    if "process" not in request.fixturenames:
        from client.preflight import run as module

        kept = tuple(entry for entry in module._CHECKS if entry[0] not in ("device", "sandbox"))
        monkeypatch.setattr(module, "_CHECKS", kept)


def test_a_site_that_can_start(run, site, tmp_path):
    done = run("check", site())
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert all(line.split()[0] in ("ok", "warning") for line in lines[:-1]) and "2 warnings: it can start" in lines[-1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["keys", "site.yaml"]


def test_errors_make_the_exit_code_one_and_all_are_there(run, site, one_object):
    path = site("server: {address: hub}\nsokcet: x\nstaet: y")
    done = run("check", path, "--json")
    told = one_object(done.stdout)
    assert done.exit_code == 1 and told["ok"] is False and set(told) == {"ok", "checks"}
    assert all(set(check) == {"name", "level", "text"} for check in told["checks"])
    errors = [check["text"] for check in told["checks"] if check["level"] == "error"]
    assert len(errors) == 3 and any("host:port" in e for e in errors) and any("sokcet" in e for e in errors)
    plain = run("check", path)
    assert plain.exit_code == 1 and "3 errors" in plain.stdout
    assert len(plain.stdout.splitlines()) == len(told["checks"]) + 1  # one line each where no terminal folds them


def test_json_of_a_good_site(run, site, one_object):
    done = run("check", site(), "--json")
    assert done.exit_code == 0 and one_object(done.stdout)["ok"] is True


def test_a_yaml_that_is_not_there(run, tmp_path, one_object):
    done = run("check", tmp_path / "[bold]gone[1].yaml")
    assert done.exit_code == 2 and done.stdout == "" and "[bold]gone[1].yaml: no such file" in done.stderr
    assert "no such file" in one_object(run("check", tmp_path / "gone.yaml", "--json").stdout)["error"]


def test_the_files_and_reports_to_come_are_checked(run, site, tmp_path, one_object):
    (tmp_path / "reports.csv").write_text("accession,words\nACC-SENTINEL,clear\n")
    done = run("check", site(), "--dicom", tmp_path / "none", "--reports", tmp_path / "reports.csv", "--json")
    names = {check["name"] for check in one_object(done.stdout)["checks"] if check["level"] == "error"}
    assert names == {"disk", "reports"} and "SENTINEL" not in done.stdout


def test_it_says_how_to_use_it(run):
    done = run("check", "--help")
    assert done.exit_code == 0 and "fedcxr-site check site.yaml --dicom" in " ".join(done.stdout.split())


def test_in_a_process_of_its_own(process, site, one_object):
    done = process("check", site("device: cpu"), "--json")
    told = one_object(done.stdout)
    assert done.returncode == 0 and done.stderr == "" and told["ok"] is True
    assert {"device", "sandbox"} <= {check["name"] for check in told["checks"]}
