"""From what a user types to a resolved plan with absolute folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.config import ConfigError
from strategies.launch import find_config, launch, overrides_of
from tests.world import plan_values, write_plan

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def typed(tmp_path) -> dict:
    """A run configuration that works: a plan on a store folder, as Flower hands it over with its defaults."""
    (tmp_path / "store").mkdir()
    return {
        "config": str(write_plan(tmp_path / "plan.yaml")),
        "data": str(tmp_path / "store"),
        "out": str(tmp_path / "out"),
        "seed": -1,
        "rounds": -1,
        "set": "",
        "resume": "",
        "run": "",
    }


def refused(values) -> str:
    with pytest.raises(ConfigError) as caught:
        launch(values)
    return str(caught.value)


def test_what_works_works(typed, tmp_path):
    launched = launch(typed)
    assert launched.data == tmp_path / "store" and launched.out == tmp_path / "out"
    assert launched.plan.seed == 3 and launched.plan.phases[0].rounds == 2
    assert not launched.out.exists()  # resolving makes nothing


def test_the_flat_keys_are_those_of_the_project_file():
    import tomllib

    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    launched = launch(declared | {"out": "/absolute"})
    assert launched.plan.name == "phantom" and launched.data is None


def test_seed_and_rounds_and_set(typed):
    two = [{**plan_values()["phases"][0], "name": n} for n in ("a", "b")]
    write_plan(Path(typed["config"]), phases=two)
    text = " federation.quorum = 0.75;phases.1.local.lr=1e-2 ; arms=[federated, local];model.vision.pool=cls; "
    plan = launch(typed | {"seed": 11, "rounds": 5, "set": text}).plan
    assert plan.seed == 11 and [p.rounds for p in plan.phases] == [5, 5]
    assert plan.federation.quorum == 0.75 and plan.arms == ("federated", "local")
    assert [p.local.lr for p in plan.phases] == [0.003, 0.01] and plan.model.vision.pool == "cls"


def test_zero_is_a_seed_and_minus_one_is_as_written(typed):
    assert launch(typed | {"seed": 0}).plan.seed == 0
    assert launch(typed | {"seed": -1}).plan.seed == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rounds": 0}, "rounds 0: at least 1"),
        ({"rounds": "three"}, "rounds 'three': expected a whole number"),
        ({"seed": "x"}, "seed 'x': expected a whole number"),
        ({"seed": None}, "seed None: expected a whole number"),
        ({"set": "federation.quorum"}, "expected key=value"),
        ({"set": "federation.qourum=1"}, "federation.qourum: unknown key; did you mean 'quorum'"),
        ({"set": "seed=[1"}, "not valid YAML"),
        ({"set": "seed=1; seed=2"}, "set seed: stands twice"),
        ({"seed": 4, "set": "seed=5"}, "seed 4 and set seed=5"),
        ({"rounds": 4, "set": "phases.0.rounds=5"}, "rounds 4 and set phases.0.rounds=5"),
        ({"set": "phases.3.rounds=5"}, "'3' is not a position in a list of 1"),
        ({"set": "name.first=x"}, "'name' holds a value"),
        ({"sed": 3}, "sed: unknown key; did you mean 'seed'?"),
        ({"dta": "/x"}, "dta: unknown key; did you mean 'data'?"),
    ],
)
def test_a_bad_override_is_refused_in_words(typed, changes, said):
    assert said in refused(typed | changes)


def test_values_of_set_are_yaml():
    found = overrides_of({"set": "a=1; b=1.5; c=true; d=null; e=[x, 2]; f={g: 1}; h=word; i=a=b; j="})
    assert found == {
        "a": 1,
        "b": 1.5,
        "c": True,
        "d": None,
        "e": ["x", 2],
        "f": {"g": 1},
        "h": "word",
        "i": "a=b",
        "j": None,
    }
    assert overrides_of({}) == {}


def test_missing_data_is_told(typed):
    assert refused(typed | {"data": ""}).startswith("data: missing")


@pytest.mark.parametrize(
    ("data", "said"),
    [("some/folder", "give an absolute folder"), ("/no/such/folder/anywhere", "no such folder")],
)
def test_data_that_cannot_be_is_told(typed, data, said):
    assert said in refused(typed | {"data": data}) and repr(data) in refused(typed | {"data": data})


def test_superfluous_data_is_told(typed, tmp_path):
    assert "generates its patients" in refused({**typed, "config": "phantom"})
    write_plan(Path(typed["config"]), simulation=None)
    assert "real sites" in refused(typed)
    assert launch(typed | {"data": ""}).data is None


def test_a_file_is_no_data_folder(typed):
    assert "no such folder" in refused(typed | {"data": typed["config"]})


def test_a_relative_out_is_refused(typed):
    assert refused(typed | {"out": "runs"}).startswith("out 'runs': give an absolute folder")


def test_out_falls_back_to_the_environment_then_home(typed, monkeypatch, tmp_path):
    monkeypatch.setenv("FEDCXR_OUT", str(tmp_path / "elsewhere"))
    assert launch(typed | {"out": ""}).out == tmp_path / "elsewhere"
    monkeypatch.delenv("FEDCXR_OUT")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert launch(typed | {"out": ""}).out == tmp_path / "fedcxr-runs"
    assert launch(typed | {"out": "~/here"}).out == tmp_path / "here"


def test_a_plan_is_found_by_name_by_path_in_the_project_and_by_absolute_path(typed, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # the working folder of a run's process is anybody's guess
    want = ROOT / "configs" / "runs" / "phantom.yaml"
    assert find_config("phantom") == find_config("configs/runs/phantom.yaml") == find_config(str(want)) == want
    with pytest.raises(ConfigError, match=r"config 'fantom': no such file; .*configs/runs/phantom\.yaml"):
        find_config("fantom")
    assert "no such file" in refused(typed | {"config": "plan.yaml"})  # relative to the project, not to here
