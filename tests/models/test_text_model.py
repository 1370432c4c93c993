"""A model with a text tower: what its components are, and that a frozen trunk is none."""

from __future__ import annotations

import pytest
import torch

from models.config import ConfigError, build
from models.model import ModelConfig, initial_model
from models.registry import configure
from tests.models.objectives.towers import text_model

VIT = {"name": "vit", "image_size": 32, "patch": 8, "width": 32, "depth": 1, "heads": 2}
TEXT = {"scratch": {"width": 32, "heads": 4, "vocabulary": 1200}, "max_tokens": 64, "batch_tokens": 512}


def mntp():
    return configure("models.objectives", {"name": "mntp"}).build()


def diagnosis():
    return configure("models.objectives", {"name": "diagnosis", "findings": ["Edema"], "size": 32}).build()


def test_both_towers():
    cfg = build(
        ModelConfig, {"vision": VIT, "text": {**TEXT, "lora": {"rank": 2}, "language_head": True, "project": 8}}
    )
    model = initial_model(cfg, [diagnosis(), mntp()], 0)
    assert list(model.components()) == ["vision", "text_lora", "text_proj", "head.diagnosis"]
    names = model.state(["text_lora"])
    assert len(names) == 28 and all(n.startswith("text_lora/layers.") and ".lora_" in n for n in names)
    assert not any("embed_tokens" in n or "lm_head" in n for n in model.state())


def test_adapters_travel_and_are_loaded():
    a, b = (text_model(mntp(), seed=s, lora={"rank": 2}, language_head=True) for s in (0, 0))
    sent = {name: torch.randn_like(value) for name, value in a.state(["text_lora"]).items()}
    b.load(["text_lora"], sent)
    a.load(["text_lora"], sent)
    assert torch.equal(a.text.encode(["edema"]), b.text.encode(["edema"]))
    with pytest.raises(ValueError, match="missing"):
        b.load(["text_lora"], dict(list(sent.items())[1:]))


def test_adding_a_text_tower_leaves_the_film_tower_as_it_was():
    alone = initial_model(build(ModelConfig, {"vision": VIT}), [diagnosis()], 3)
    both = initial_model(build(ModelConfig, {"vision": VIT, "text": TEXT}), [diagnosis()], 3)
    assert all(torch.equal(v, both.state(["vision"])[n]) for n, v in alone.state(["vision"]).items())


def test_everywhere_the_same_start():
    one, other = (text_model(mntp(), seed=5, lora={"rank": 2}, language_head=True) for _ in range(2))
    assert one.text.base_hash == other.text.base_hash
    assert all(torch.equal(v, other.state()[n]) for n, v in one.state().items())


def test_a_model_without_towers_and_an_objective_without_its_tower():
    with pytest.raises(ConfigError, match="vision and text: neither"):
        build(ModelConfig, {})
    with pytest.raises(ConfigError, match="vision and text: neither"):
        build(ModelConfig, {"vision": None, "text": None})
    with pytest.raises(ConfigError, match=r"Diagnosis and no model\.vision"):
        initial_model(build(ModelConfig, {"text": TEXT}), [diagnosis()], 0)


def test_a_mistake_in_the_tower_is_named_with_its_place():
    with pytest.raises(ConfigError, match=r"text\.scratch\.widht: unknown key; did you mean 'width'\?"):
        build(ModelConfig, {"text": {"scratch": {"widht": 3}}})
