"""What Flower bundles is what runs: nothing needed is dropped, nothing stale or private is taken along."""

from __future__ import annotations

import io
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk

from server.simulate import _staged
from strategies.code import PACKAGES
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    stage = _staged(ROOT, tmp_path_factory.mktemp("home"))
    folder = tmp_path_factory.mktemp("bundle")
    zipfile.ZipFile(io.BytesIO(build_fab_from_disk(stage))).extractall(folder)
    return folder


def needed() -> set[str]:
    """Every file below the four packages and configs that git tracks or would track, by path from the root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES, "configs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    return {name for name in listed if name and (ROOT / name).exists()}


def test_bundle_holds_the_tree_byte_for_byte(bundle):
    got = {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}
    assert needed() <= got, f"dropped from the bundle: {sorted(needed() - got)}"
    extra = {name for name in got - needed() if not name.startswith(".info/")} - {"pyproject.toml"}
    assert not extra, f"in the bundle and not in the tree: {sorted(extra)}"
    for name in needed():
        assert (bundle / name).read_bytes() == (ROOT / name).read_bytes(), name


def test_a_checkout_with_a_virtual_environment_bundles_the_same(bundle):
    """Plain `flwr run .` bundles the checkout itself, not our staged copy."""
    names = {n for n in zipfile.ZipFile(io.BytesIO(build_fab_from_disk(ROOT))).namelist() if not n.startswith(".info/")}
    staged = {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}
    assert names == {n for n in staged if not n.startswith(".info/")}


def test_bundle_alone_can_plan_a_run(bundle):
    """From an empty folder, with only the bundle on the path: every shipped plan loads."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "import strategies.code\n"
        "assert str(strategies.code.ROOT) == sys.argv[1], strategies.code.ROOT\n"
        "from strategies.launch import find_config\n"
        "from strategies.plan import load_run\n"
        "plans = sorted(Path(sys.argv[1], 'configs', 'runs').glob('*.yaml'))\n"
        "assert len(plans) >= 2\n"
        "for plan in plans: load_run(find_config(f'configs/runs/{plan.name}')).new_model()\n"
    )
    subprocess.run([sys.executable, "-I", "-c", code, str(bundle)], check=True, cwd="/")


def test_code_hash_of_bundle_and_tree_agree(bundle):
    from strategies.code import code_hash

    assert code_hash(bundle) == code_hash(ROOT)


def test_pyproject_keeps_flower_from_installing_and_rewriting():
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "dependencies" not in about["project"] and "dependencies" in about["project"]["dynamic"]
    assert "federations" not in about["tool"]["flwr"]
    metadata = about["tool"]["uv"]["dependency-metadata"][0]
    assert metadata["requires-dist"] == [] and metadata["version"] == about["project"]["version"]
    assert all(isinstance(v, str | int) for v in about["tool"]["flwr"]["app"]["config"].values())


def test_uv_sync_as_flower_calls_it_installs_nothing_and_asks_nobody(bundle, tmp_path):
    """Even where Flower's installation at run start is left on: no package, no network (uv runs offline)."""
    import os

    command = [
        sys.executable,
        "-m",
        "uv",
        "sync",
        "--offline",
        "--python",
        sys.executable,
        "--no-install-project",
        "--no-install-package",
        "flwr",
        "--inexact",
    ]
    environment = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(tmp_path / "env")}
    done = subprocess.run(command, cwd=bundle, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    site = next((tmp_path / "env").rglob("site-packages"))
    assert not [p for p in site.iterdir() if p.suffix == ".dist-info"]
    (bundle / "uv.lock").unlink(missing_ok=True)


def test_constraints_pin_what_requirements_ask_for():
    import re

    names = lambda path: {
        re.split(r"[\[<>=~ ]", x)[0].lower() for x in path.read_text().splitlines() if x and x[0] != "#"
    }
    deploy = Path(ROOT, "deploy")
    assert names(deploy / "requirements.txt") <= names(deploy / "constraints.txt")
    assert "torch==2.13.0" in (deploy / "constraints.txt").read_text()
