"""The arrows of the house, read from the source of every file, so that no import hides inside a function."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("models", "strategies", "client", "server")
FORBIDDEN = {
    "models": {"strategies", "client", "server"},
    "strategies": {"client", "server"},
    "client": {"server"},
    "server": {"client"},
}
NOBODY = {"deploy", "configs", "tests"}
MAY_IMPORT_FLWR = {"client/app.py", "client/cli.py", "server/app.py", "server/cli.py"}
TOP = {
    "pyproject.toml",
    "README.md",
    *PACKAGES,
    "configs",
    "deploy",
    "tests",
    "LICENSE",
    "SECURITY.md",
    "Makefile",
}
LONGEST = 500


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def sources(*packages: str) -> list[Path]:
    return sorted(p for name in packages for p in (ROOT / name).rglob("*.py"))


def imported(tree: ast.AST, module: str) -> Iterator[str]:
    """Full names of all modules and members that the source of ``module`` (dotted) imports, anywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: -node.level]
                base = ".".join([*parents, base] if base else parents)
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _name(node.func) in (
            "importlib.import_module",
            "import_module",
            "__import__",
        ):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value
            elif isinstance(first, ast.JoinedStr) and isinstance(first.values[0], ast.Constant):
                yield str(first.values[0].value)


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return ""


def broken_arrows(path: Path, root: Path) -> list[str]:
    """What ``path`` imports that its place in the house forbids."""
    relative = path.relative_to(root).as_posix()
    package = relative.split("/")[0]
    module = relative.removesuffix(".py").replace("/", ".")
    flwr = relative in MAY_IMPORT_FLWR or (package == "strategies" and relative != "strategies/messages.py")
    forbidden = FORBIDDEN[package] | NOBODY | (set() if flwr else {"flwr"})
    names = imported(parsed(path), module)
    return [f"{relative} imports {name}" for name in names if name.split(".")[0] in forbidden]


DANGEROUS_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
DANGEROUS_CALLS = {
    "eval",
    "exec",
    "os.system",
    "os.popen",
    "torch.load",
    "yaml.load_all",
    "yaml.unsafe_load",
    "yaml.full_load",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
}
DANGEROUS_KEYWORDS = {"shell", "allow_pickle"}
# The reader of others' .pth files may load them, as weights only: torch then builds tensors and runs nothing.
WEIGHTS_ONLY = {"models/released.py"}


def dangers(path: Path, root: Path) -> list[str]:
    """Ways of running what data says: unpickling, evaluating, shell strings."""
    relative, found = path.relative_to(root).as_posix(), []
    tree = parsed(path)
    for name in imported(tree, relative.removesuffix(".py").replace("/", ".")):
        if name.split(".")[0] in DANGEROUS_MODULES or name in DANGEROUS_CALLS:
            found.append(f"{relative} imports {name}")
    allowed = {id(call.func) for call in ast.walk(tree) if relative in WEIGHTS_ONLY and _weights_only(call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and _name(node) in DANGEROUS_CALLS and id(node) not in allowed:
            found.append(f"{relative}:{node.lineno} names {_name(node)}")
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                off = isinstance(keyword.value, ast.Constant) and not keyword.value.value
                if keyword.arg in DANGEROUS_KEYWORDS and not off:
                    found.append(f"{relative}:{node.lineno} passes {keyword.arg}")
            if _name(node.func) == "yaml.load" and not _safe_loader(node, tree):
                found.append(f"{relative}:{node.lineno} loads YAML with a loader that is not a SafeLoader")
    return found


def _weights_only(node: ast.AST) -> bool:
    """Whether this is ``torch.load(..., weights_only=True)``, spelt out."""
    if not isinstance(node, ast.Call) or _name(node.func) != "torch.load":
        return False
    return any(
        k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value is True for k in node.keywords
    )


def _safe_loader(call: ast.Call, tree: ast.AST) -> bool:
    """Whether the loader is PyYAML's safe one, or a class of this file derived from it."""
    named = [_name(k.value) for k in call.keywords if k.arg == "Loader"] + [_name(a) for a in call.args[1:2]]
    derived = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and [_name(b) for b in node.bases] == ["yaml.SafeLoader"]
    }
    return len(named) == 1 and named[0] in {"yaml.SafeLoader", "yaml.CSafeLoader", *derived}


def test_every_import_follows_the_arrows():
    files = sources(*PACKAGES)
    assert len(files) > 50
    assert [line for path in files for line in broken_arrows(path, ROOT)] == []


def test_no_source_runs_what_data_says():
    assert [line for path in sources(*PACKAGES) for line in dangers(path, ROOT)] == []


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("models/x.py", "import strategies.wire"),
        ("models/deep/x.py", "def f():\n    from client import trainer"),
        ("models/x.py", "from ..server import run"),
        ("models/x.py", "import flwr"),
        ("strategies/x.py", "if True:\n    import server"),
        ("strategies/messages.py", "from flwr.app import Array"),
        ("client/x.py", "from server.folder import RunFolder"),
        ("client/ingest/x.py", "from ...server import folder"),
        ("client/trainer.py", "import flwr.app"),
        ("client/x.py", "import importlib\nimportlib.import_module('server.run')"),
        ("client/x.py", "__import__('flwr')"),
        ("client/x.py", "import importlib\nimportlib.import_module(f'server.{1}')"),
        ("server/x.py", "import client as c"),
        ("server/simulate.py", "from flwr import app"),
        ("server/x.py", "import tests.world"),
        ("strategies/x.py", "import configs"),
        ("client/x.py", "from deploy import x"),
    ],
)
def test_a_forbidden_import_is_caught(tmp_path, place, line):
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    assert len(broken_arrows(path, tmp_path)) == 1


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("models/x.py", "import torch\nfrom models.config import build"),
        ("models/x.py", "from . import config\nfrom .studies import store"),
        ("strategies/records.py", "from flwr.app import Array\nimport models.loop"),
        ("client/app.py", "import flwr\nfrom strategies import wire\nimport clientele"),
        ("server/x.py", "import importlib\nname = 'client'\nimportlib.import_module(name)"),
    ],
)
def test_an_allowed_import_is_not(tmp_path, place, line):
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    assert broken_arrows(path, tmp_path) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "from torch import load",
        "import torch\ntorch.load('x')",
        "eval('1')",
        "f = eval",
        "import os\nos.system('ls')",
        "from os import system",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import subprocess\nsubprocess.run('ls', shell=1 > 0)",
        "import numpy\nnumpy.load('x', allow_pickle=True)",
        "import yaml\nyaml.load(x, Loader=yaml.Loader)",
        "import yaml\nyaml.load(x, yaml.UnsafeLoader)",
        "import yaml\nclass L(yaml.FullLoader): pass\nyaml.load(x, Loader=L)",
    ],
)
def test_a_danger_is_caught(tmp_path, line):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "x.py").write_text(line + "\n")
    assert dangers(tmp_path / "models" / "x.py", tmp_path)


@pytest.mark.parametrize(
    ("place", "line", "found"),
    [
        ("models/released.py", "torch.load(x, weights_only=True)", 0),
        ("models/released.py", "torch.load(x)", 1),
        ("models/released.py", "torch.load(x, weights_only=False)", 1),
        ("models/released.py", "torch.load(x, weights_only=flag)", 1),
        ("models/released.py", "load = torch.load", 1),
        ("models/x.py", "torch.load(x, weights_only=True)", 1),
    ],
)
def test_only_the_reader_of_released_weights_may_load_and_only_weights(tmp_path, place, line, found):
    (tmp_path / "models").mkdir()
    (tmp_path / place).write_text(f"import torch\n{line}\n")
    assert len(dangers(tmp_path / place, tmp_path)) == found


def test_the_mode_switch_of_torch_is_no_danger(tmp_path):
    (tmp_path / "models").mkdir()
    source = "model.eval()\nimport subprocess\nsubprocess.run(['ls'], shell=False)\nsafetensors.load(x)\n"
    (tmp_path / "models" / "x.py").write_text(source)
    assert dangers(tmp_path / "models" / "x.py", tmp_path) == []


def _tracked() -> list[str]:
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    if done.returncode:
        pytest.skip("not a git checkout")
    return [name for name in done.stdout.split("\0") if name]


def test_nothing_else_stands_at_the_top():
    top = {name.split("/")[0] for name in _tracked()}
    assert {name for name in top if not name.startswith(".")} <= TOP
    assert {"pyproject.toml", "README.md", *PACKAGES, "configs", "deploy", "tests"} <= top


def test_no_file_is_too_long():
    lengths = {p.relative_to(ROOT).as_posix(): len(p.read_text().splitlines()) for p in sources(*PACKAGES)}
    assert {name: n for name, n in lengths.items() if n > LONGEST} == {}


def test_every_source_folder_is_a_package():
    folders = {p.parent for p in sources(*PACKAGES)}
    assert [f.relative_to(ROOT).as_posix() for f in sorted(folders) if not (f / "__init__.py").exists()] == []


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_client_adapter_starts_without_torch():
    done = _python(
        "import sys, client.app\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('torch', 'kornia', 'pyarrow')))"
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.parametrize("module", ["client.trainer", "client.service", "strategies.messages"])
def test_the_site_side_starts_without_flower(module):
    done = _python(f"import sys; sys.modules['flwr'] = None; import {module}; print('started')")
    assert (done.returncode, done.stdout.strip()) == (0, "started"), done.stderr


def test_the_block_of_flower_blocks():
    done = _python("import sys; sys.modules['flwr'] = None; import client.app")
    assert done.returncode != 0 and "flwr" in done.stderr


def test_the_wire_contract_needs_no_torch():
    done = _python("import sys; sys.modules['torch'] = None; import strategies.messages; print('started')")
    assert (done.returncode, done.stdout.strip()) == (0, "started"), done.stderr
