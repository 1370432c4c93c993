"""The word lists: that they are whole, shipped, and mean what they say."""

import tomllib
from pathlib import Path

import pytest
import yaml

import models.language.vocabulary as vocabulary
from models.config import ConfigError
from models.language.attributes import attributes
from models.language.labeller import label_text
from models.language.vocabulary import expand, load, names, phrases
from models.studies.schema import CHEXPERT, Label

FOLDER = Path(vocabulary.__file__).parent
ROOT = Path(__file__).parents[3]


def test_a_pattern_stands_for_its_phrases():
    assert set(expand("a|b [c] d")) == {("a", "c", "d"), ("b", "c", "d"), ("a", "d"), ("b", "d")}
    assert set(expand("x [of_the|in]")) == {("x", "of", "the"), ("x", "in"), ("x",)}
    assert phrases(["A b", "a B"]) == {("a", "b")}


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("", "stands for 0"),
        ("[a] [b]", "left out as a whole"),
        ("[a b]", "bracket"),
        ("a||b", "empty"),
        ("[a]b", "bracket"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_named(pattern, told):
    with pytest.raises(ConfigError, match=told):
        list(expand(pattern))


def test_a_pattern_for_too_many_phrases_is_refused():
    with pytest.raises(ConfigError, match="allowed"):
        list(expand(" ".join(["a|b|c|d|e|f"] * 7)))


def test_every_list_has_a_header_and_loads():
    assert len(names()) >= 8
    for name in names():
        text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
        assert text.startswith("# ") and len(text.split("\n\n")[0].splitlines()) >= 1, name
        head = [line for line in text.splitlines()[:40] if line.startswith("#")]
        assert len(head) >= 4 and load(name), name


def test_a_list_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"nosuch\.yaml"):
        load("nosuch")


def test_lists_hold_words_and_no_yaml_surprises():
    """YAML reads a bare no, yes, on or off as a truth value."""

    def walk(value, where):
        if isinstance(value, dict):
            for key, inner in value.items():
                assert isinstance(key, str), (where, key)
                walk(inner, (*where, key))
        elif isinstance(value, list):
            for inner in value:
                walk(inner, where)
        else:
            assert isinstance(value, str) or where[-1] in (
                "share",
                "synonyms",
                "telegraphic",
                "prose",
                "expand",
                "upper",
                "numbered",
                "open",
            ), where

    for name in names():
        walk(load(name), (name,))


def test_lists_go_into_the_bundle_and_the_wheel():
    """Flower drops csv and txt from a bundle, and what no pattern names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "models/**/*.yaml" in project["tool"]["flwr"]["app"]["fab-include"]
    assert "*.yaml" in project["tool"]["setuptools"]["package-data"]["*"]
    assert (FOLDER / "__init__.py").is_file()  # else setuptools takes it for no package and leaves the data out
    assert {p.suffix for p in FOLDER.iterdir() if p.is_file()} <= {".py", ".yaml"}


def said(text):
    return {
        name: label
        for name, label in label_text(text).items()
        if label is not Label.UNMENTIONED and name != CHEXPERT[0]
    }


def test_every_denial_denies_its_finding_and_nothing_else():
    table = load("wording")
    assert not set(table["denials"]["train"]) & set(table["denials"]["test"])
    assert len(table["denials"]["train"]) >= 10
    for finding in CHEXPERT[1:]:
        for term in table["names"][finding]:
            for rule in (*table["denials"]["train"], *table["denials"]["test"]):
                text = rule.format(term=term, Term=term[0].upper() + term[1:])
                assert said(text) == {finding: Label.ABSENT}, text


def test_every_assertion_asserts_its_finding_and_nothing_else():
    for finding, texts in load("wording")["asserted"].items():
        assert len(texts["train"]) >= 2 and len(texts["test"]) >= 2 and not set(texts["train"]) & set(texts["test"])
        for text in (*texts["train"], *texts["test"]):
            assert said(text) == {finding: Label.PRESENT}, text
    added = load("wording")["added"]
    assert not set(added["train"]) & set(added["test"])
    for text in (*added["train"], *added["test"]):
        assert said(text) == {"Support Devices": Label.PRESENT}, text


def test_exchanged_words_are_words_the_labeller_knows():
    table = load("attributes")
    for a, b in table["degrees"]:
        for word in (a, b):
            assert attributes(f"{word} pleural effusion")["Pleural Effusion"].degrees == {word}
    for a, b in load("wording")["devices"].items():
        for device in (a, *b):
            assert said(f"{device} in place.") == {"Support Devices": Label.PRESENT}, device


def test_short_forms_mean_what_they_are_written_for():
    """Every short form is read as its long form is."""
    for long, short, _ in load("abbreviations")["write"]:
        for text in (f"{short}.", f"No {short}.", f"{short.upper()} SEEN."):
            assert said(text) == said(text.lower().replace(short.lower(), long)), text


def test_lists_are_plain_yaml():
    for name in names():
        assert yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")) == load(name)
