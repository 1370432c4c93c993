"""Plug-ins are files; their names are the files' names."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path

import pytest

from models.config import ConfigError
from models.registry import configure, names

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("models.vision", "models.objectives", "strategies.rules")
CONSENTS = {"allow_biased", "trusted_aggregator"}  # refused unless somebody says yes


@pytest.mark.parametrize("package", PACKAGES)
def test_the_names_are_the_files_of_the_folder(package):
    files = (ROOT / package.replace(".", "/")).glob("*.py")
    parts = getattr(importlib.import_module(package), "PARTS", ())
    assert names(package) == sorted(p.stem for p in files if not p.name.startswith("_") and p.stem not in parts)
    assert names(package)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_plugin_holds_a_config_that_names_its_file(package):
    for name in names(package):
        fields = {f.name for f in dataclasses.fields(importlib.import_module(f"{package}.{name}").Config)}
        values = {"name": name} | ({"findings": ["Edema"]} if "findings" in fields else {})
        values |= dict.fromkeys(CONSENTS & fields, True)
        cfg = configure(package, values)
        assert cfg.name == name and type(cfg).__module__ == f"{package}.{name}"
        assert next(iter(type(cfg).__dataclass_fields__)) == "name"
        assert callable(cfg.build)
        assert configure(package, cfg) is cfg


def test_a_file_added_is_a_plugin_added(tmp_path, monkeypatch):
    folder = tmp_path / "towers_of_a_test"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "_helper.py").touch()
    (folder / "tall.py").write_text(
        "from typing import Literal\nfrom models.config import config\n"
        "@config\nclass Config:\n    name: Literal['tall'] = 'tall'\n    height: int = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    try:
        assert names("towers_of_a_test") == ["tall"]
        assert configure("towers_of_a_test", {"name": "tall", "height": 5}).height == 5
        with pytest.raises(ConfigError, match="unknown name '_helper'"):
            configure("towers_of_a_test", {"name": "_helper"})
    finally:
        for module in [m for m in sys.modules if m.startswith("towers_of_a_test")]:
            del sys.modules[module]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "vitt"}, "unknown name 'vitt'; did you mean 'vit'? known names: "),
        ({"name": "config"}, "unknown name 'config'"),
        ({"name": "acm"}, "unknown name 'acm'"),
        ({"name": "../objectives/diagnosis"}, "unknown name"),
        ({"name": 3}, "unknown name 3"),
        ({"name": ["vit"]}, "unknown name"),
        ({}, "name: missing; one of "),
        ({"width": 3}, "name: missing"),
        ("vit", "expected keys and values with a 'name', got 'vit'"),
        (None, "expected keys and values"),
    ],
)
def test_a_bad_name_is_refused_in_words(values, said):
    with pytest.raises(ConfigError) as caught:
        configure("models.vision", values)
    assert said in str(caught.value)


def test_a_plugin_of_another_folder_is_refused():
    rule = configure("strategies.rules", {"name": "mean"})
    with pytest.raises(ConfigError, match="expected keys and values"):
        configure("models.vision", rule)
