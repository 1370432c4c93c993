"""Strict configuration: every mistake is named with its place, nothing is guessed or dropped in silence."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from models.config import ConfigError, build, config, config_hash, override, read_yaml, to_plain
from models.model import ModelConfig
from models.registry import Plugin
from strategies.plan import RunConfig, load_run
from tests.world import plan_values

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "configs" / "runs").glob("*.yaml"))


@config
class Inner:
    width: int = 3
    depth: int = 1

    def check(self) -> None:
        if self.width < self.depth:
            raise ConfigError(f"width {self.width} and depth {self.depth}: the width must reach the depth")


@config
class Outer:
    title: str
    rate: float = 0.5
    on: bool = False
    mode: Literal["fast", "slow"] = "fast"
    inner: Inner = Inner()
    maybe: Inner | None = None
    several: tuple[Inner, ...] = ()
    named: dict[str, Inner] = field(default_factory=dict)


@config
class Towers:
    first: Plugin("models.vision")  # type: ignore[valid-type]
    others: tuple[Plugin("models.vision"), ...] = ()  # type: ignore[valid-type]


def message(cls: type, values: Any, where: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        build(cls, values, where)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "place", "nearest"),
    [
        ({"titel": "x"}, "titel", "title"),
        ({"title": "x", "inner": {"witdh": 4}}, "inner.witdh", "width"),
        ({"title": "x", "maybe": {"dept": 4}}, "maybe.dept", "depth"),
        ({"title": "x", "several": [{}, {"widht": 4}]}, "several.1.widht", "width"),
        ({"title": "x", "named": {"a": {"widht": 4}}}, "named.a.widht", "width"),
    ],
)
def test_an_unknown_key_is_named_with_its_place_and_the_nearest_known(values, place, nearest):
    lines = [line for line in message(Outer, values).splitlines() if line.startswith(f"{place}: ")]
    assert len(lines) == 1
    assert "unknown key" in lines[0] and f"did you mean {nearest!r}?" in lines[0]
    assert "depth, width" in lines[0] or nearest == "title"


def test_a_key_like_no_other_gets_the_list_and_no_guess():
    text = message(Outer, {"title": "x", "zzz": 1})
    assert text == "zzz: unknown key; known keys: inner, maybe, mode, named, on, rate, several, title"


def test_every_mistake_is_told_at_once():
    text = message(Outer, {"rate": "much", "inner": {"widht": 1}, "mode": "fsat"}, where="run.yaml")
    assert len(text.splitlines()) == 4
    for place in (
        "run.yaml.title: missing",
        "run.yaml.rate: ",
        "run.yaml.inner.widht: unknown",
        "run.yaml.mode: ",
    ):
        assert any(line.startswith(place) for line in text.splitlines()), place
    assert "'much'" in text and "'fast' or 'slow'" in text


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"title": 7}, "title"),
        ({"title": None}, "title"),
        ({"title": "x", "rate": "half"}, "rate"),
        ({"title": "x", "rate": [0.5]}, "rate"),
        ({"title": "x", "rate": float("nan")}, "rate"),
        ({"title": "x", "rate": float("inf")}, "rate"),
        ({"title": "x", "on": "perhaps"}, "on"),
        ({"title": "x", "mode": "medium"}, "mode"),
        ({"title": "x", "inner": 3}, "inner"),
        ({"title": "x", "inner": {"width": 2.5}}, "inner.width"),
        ({"title": "x", "inner": {"width": "three"}}, "inner.width"),
        ({"title": "x", "several": {"width": 3}}, "several"),
        ({"title": "x", 5: 1}, "5"),
    ],
)
def test_a_wrong_type_is_named_with_its_place(values, place):
    assert message(Outer, values).startswith(f"{place}: ")


@pytest.mark.parametrize("values", [[1, 2], "text", 3])
def test_something_other_than_keys_and_values_is_refused(values):
    assert "expected keys and values" in message(Outer, values, where="phase")


def test_a_contradiction_names_both_keys_wherever_the_class_stands():
    assert message(Inner, {"width": 1, "depth": 2}).startswith("width 1 and depth 2: ")
    assert message(Inner, {"width": 1, "depth": 2}, where="model").startswith("model: width 1 and depth 2: ")
    nested = message(Outer, {"title": "x", "several": [{}, {"width": 1, "depth": 2}]})
    assert nested.startswith("several.1: width 1 and depth 2: ")


def test_a_mistake_inside_a_plugin_is_named_with_the_place_of_the_plugin():
    one = message(Towers, {"first": {"name": "vit", "widht": 32}})
    assert one.startswith("first: widht: unknown key; did you mean 'width'?")
    several = message(Towers, {"first": {"name": "vit"}, "others": [{"name": "vit", "pach": 8, "poool": "cls"}]})
    lines = several.splitlines()
    assert len(lines) == 2 and all(line.startswith("others.0: ") for line in lines)
    assert "did you mean 'patch'?" in several and "did you mean 'pool'?" in several
    contradiction = message(ModelConfig, {"vision": {"name": "vit", "image_size": 30, "patch": 7}})
    assert contradiction.startswith("vision: image_size 30 and patch 7: ") and "28 and 35" in contradiction


def test_a_config_object_is_frozen_and_takes_no_positions():
    outer = build(Outer, {"title": "x"})
    with pytest.raises(AttributeError):
        outer.title = "y"
    with pytest.raises((TypeError, ValueError)):
        Inner(3, 1)


def test_numbers_are_kept_as_the_field_says():
    built = build(Outer, {"title": "x", "rate": 1})
    assert built.rate == 1.0 and isinstance(built.rate, float)


def written(folder: Path, text: str) -> Path:
    path = folder / "x.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [("a: 1\nb: 2\na: 3\n", 3, "a"), ("a:\n  b: 1\n  c: 2\n  b: 1\n", 4, "b"), ("a: [{x: 1, x: 2}]", 1, "x")],
)
def test_a_key_that_stands_twice_is_an_error(tmp_path, text, line, key):
    with pytest.raises(ConfigError, match=f"line {line} .*key '{key}' stands twice"):
        read_yaml(written(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        "a: [1",
        "a: 1\n b: 2",
        "\tq: 1",
        "? [a, b]\n: 1",
        "? {a: 1}\n: 1",
        "- 1\n- 2",
        "just a word",
        "a: !!python/object/apply:os.getcwd []",
        "a: !!python/name:os.system",
        "a: &x {b: 1}\nc: {<<: *x}",
    ],
)
def test_what_is_not_plain_keys_and_values_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match=r"x\.yaml"):
        read_yaml(written(tmp_path, text))


def test_a_missing_or_unreadable_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_yaml(tmp_path / "latin.yaml")


def test_an_empty_file_is_an_empty_mapping_and_values_come_as_they_are(tmp_path):
    assert read_yaml(written(tmp_path, "# only a comment\n")) == {}
    text = "a: {b: [1, 2.5, true, null, 'on']}\nc: text\n"
    assert read_yaml(written(tmp_path, text)) == {"a": {"b": [1, 2.5, True, None, "on"]}, "c": "text"}


def test_an_override_reaches_keys_lists_and_new_levels():
    values = {"phases": [{"rounds": 1}, {"rounds": 2}], "a": {"b": 1}}
    override(values, "phases.1.rounds", 9)
    override(values, "a.b", [1])
    override(values, "new.deep.key", "x")
    override(values, "phases.0", {"rounds": 5})
    assert values == {
        "phases": [{"rounds": 5}, {"rounds": 9}],
        "a": {"b": [1]},
        "new": {"deep": {"key": "x"}},
    }


@pytest.mark.parametrize(
    ("dotted", "said"),
    [
        ("phases.2.rounds", "'2' is not a position in a list of 1"),
        ("phases.x.rounds", "'x' is not a position"),
        ("phases.-1.rounds", "'-1' is not a position"),
        ("phases.1", "'1' is not a position"),
        ("seed.deep", "'seed' holds a value"),
    ],
)
def test_an_override_that_leads_nowhere_is_refused(dotted, said):
    values = {"phases": [{"rounds": 1}], "seed": 3}
    with pytest.raises(ConfigError, match=said):
        override(values, dotted, 0)
    assert values == {"phases": [{"rounds": 1}], "seed": 3}


def test_a_misspelt_override_ends_as_an_unknown_key(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan_values()))
    with pytest.raises(ConfigError, match=r"federation\.qourum: unknown key; did you mean 'quorum'"):
        load_run(path, {"federation.qourum": 1.0})


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_plain_values_build_the_same_object_again(path):
    plan = load_run(path)
    plain = to_plain(plan)
    assert build(RunConfig, plain) == plan
    through_yaml = yaml.safe_load(yaml.safe_dump(plain))
    assert build(RunConfig, through_yaml) == plan
    assert build(RunConfig, json.loads(json.dumps(plain))).hash == plan.hash


def test_plain_values_hold_nothing_but_what_yaml_knows():
    plain = to_plain({"p": Path("a/b"), "t": (1, {"x": Inner()}), 3: frozenset([2])})
    assert plain == {"p": "a/b", "t": [1, {"x": {"width": 3, "depth": 1}}], "3": [2]}


def test_the_hash_is_the_sha256_of_sorted_compact_json():
    text = '{"depth":1,"width":4}'
    assert config_hash(Inner(width=4)) == sha256(text.encode()).hexdigest()


def test_the_hash_does_not_depend_on_how_a_value_was_written():
    said = build(Outer, {"title": "x", "rate": 1, "inner": {"depth": 1, "width": 3}})
    unsaid = build(Outer, {"rate": 1.0, "title": "x"})
    assert config_hash(said) == config_hash(unsaid)


@given(width=st.integers(1, 50), depth=st.integers(0, 50), rate=st.floats(0, 1), on=st.booleans())
def test_equal_configs_and_only_they_have_equal_hashes(width, depth, rate, on):
    one = Outer(title="x", rate=rate, on=on, inner=Inner(width=width + depth, depth=depth))
    again = build(Outer, to_plain(one))
    assert again == one and config_hash(again) == config_hash(one)
    other = Outer(title="x", rate=rate, on=not on, inner=Inner(width=width + depth, depth=depth))
    assert config_hash(other) != config_hash(one)


def test_the_hash_is_the_same_in_another_process():
    """Another process orders sets and dictionaries of words by another random hash."""
    code = "from models.config import config_hash; print(config_hash({'b': [1.5, 'x'], 'a': {'z': None, 'y': True}}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PYTHONHASHSEED": "1"},
        timeout=60,
    )
    assert done.stdout.strip() == config_hash({"a": {"y": True, "z": None}, "b": (1.5, "x")}), done.stderr
