from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from models.config import ConfigError
from models.text.adapters import targets
from models.text.config import Lora
from tests.models.text.towers import FAMILIES, REPORTS, make, stir

SEVEN = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def leaves(names: list[str]) -> set[str]:
    return {name.rsplit(".", 1)[-1] for name in names}


def test_all_linears_of_a_llama_are_the_seven(tower):
    found = targets(tower.trunk, Lora())
    assert leaves(found) == SEVEN and len(found) == 14
    assert leaves(targets(tower.trunk, Lora(targets="attention"))) == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert leaves(targets(tower.trunk, Lora(targets=("q_proj", "v_proj")))) == {"q_proj", "v_proj"}
    assert targets(tower.trunk, Lora(targets=("layers.1.mlp.up_proj",))) == ["layers.1.mlp.up_proj"]


@pytest.mark.parametrize(
    ("family", "attention", "rest"), [("bert", 4, 2), ("modernbert", 2, 2), ("gemma3", 4, 3), ("qwen3", 4, 3)]
)
def test_other_families(family, attention, rest):
    trunk = make(scratch={"family": family}).trunk
    assert len(targets(trunk, Lora(targets="attention"))) == 2 * attention
    assert len(targets(trunk, Lora())) == 2 * (attention + rest)


def test_an_unknown_target_names_those_there_are():
    with pytest.raises(ConfigError, match=r"'query'.*down_proj, gate_proj.*v_proj"):
        make(lora={"targets": ["q_proj", "query"]})


@pytest.mark.parametrize("family", FAMILIES)
def test_every_adapter_has_a_gradient_and_the_trunk_none(family):
    tower = make(scratch={"family": family}, lora={"rank": 4})
    stir(tower)
    tower.embed(REPORTS).square().sum().backward()
    part = tower.components()["text_lora"]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in part.parameters())
    own = {id(p) for p in part.parameters()}
    assert all(p.grad is None for p in tower.trunk.parameters() if id(p) not in own)


def test_the_update_is_b_a_scaled(tower):
    adapted = make(lora={"rank": 4, "alpha": 12, "targets": ["o_proj"]})
    stir(adapted)
    state = adapted.components()["text_lora"].state_dict()
    by_hand = make()
    with torch.no_grad():
        for i, layer in enumerate(by_hand.trunk.layers):
            a, b = (state[f"layers.{i}.self_attn.o_proj.lora_{x}.weight"] for x in "AB")
            layer.self_attn.o_proj.weight.add_(12 / 4 * b @ a)
    assert torch.allclose(adapted.encode(REPORTS), by_hand.encode(REPORTS), atol=1e-5)
    assert not torch.allclose(adapted.encode(REPORTS), tower.encode(REPORTS), atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_folder_loads_with_the_library_alone(tmp_path, family):
    tower = make(scratch={"family": family}, lora={"rank": 4})
    stir(tower)
    tower.save(tmp_path)
    model, tokenizer = AutoModel.from_pretrained(tmp_path).eval(), AutoTokenizer.from_pretrained(tmp_path)
    coded = tokenizer(REPORTS[1], return_tensors="pt", return_special_tokens_mask=True)
    with torch.no_grad():
        states = model(input_ids=coded["input_ids"])[0][0]
    vector = states[coded["special_tokens_mask"][0] == 0].mean(0)
    assert torch.allclose(tower.encode(REPORTS[1:2])[0], vector, atol=1e-5)  # hence bidirectional, too
    assert json.loads((tmp_path / "config.json").read_text())["is_causal"] is False


def test_a_saved_tower_is_read_back_with_pooling_and_projection(tmp_path):
    wish = {"pooling": "latent", "latents": 8, "latent_heads": 4, "project": 12}
    tower = make(lora={"rank": 4}, **wish)
    stir(tower)
    tower.save(tmp_path)
    again = make(seed=9, source=str(tmp_path), **wish)
    assert torch.allclose(again.encode(REPORTS, "Sum"), tower.encode(REPORTS, "Sum"), atol=1e-5)
    assert list(again.components()) == ["text", "text_pool", "text_proj"]
    again.trunk.requires_grad_(True)
    again.embed(REPORTS).square().sum().backward()  # after merging nothing is left frozen by accident
    assert all(p.grad is not None for p in again.components()["text"].parameters())
    with pytest.raises(ConfigError, match=r"pooling there does not fit: latents \(\(8, 32\) there, \(16, 32\) here\)"):
        make(source=str(tmp_path), **{**wish, "latents": 16})
    with pytest.raises(ConfigError, match="set project to its width"):
        make(source=str(tmp_path), **{**wish, "project": 0})


def test_merging_changes_nothing_here(tmp_path):
    tower = make(lora={"rank": 4})
    stir(tower)
    before, digest = tower.encode(REPORTS), tower.vector_hash()
    tower.save(tmp_path)
    assert torch.equal(tower.encode(REPORTS), before) and tower.vector_hash() == digest


def test_an_adapter_folder_is_peft_s(tmp_path, folder):
    tower = make(source=str(folder), lora={"rank": 4, "alpha": 6})
    stir(tower)
    tower.save_adapter(tmp_path)
    trunk = AutoModel.from_pretrained(folder)
    theirs = PeftModel.from_pretrained(trunk, tmp_path).eval()
    coded = tower.tokens.tokenizer(REPORTS[1], return_tensors="pt", return_special_tokens_mask=True)
    with torch.no_grad():
        states = theirs(input_ids=coded["input_ids"])[0][0]
    assert torch.allclose(
        tower.encode(REPORTS[1:2])[0], states[coded["special_tokens_mask"][0] == 0].mean(0), atol=1e-5
    )
    again = make(seed=3, source=str(folder), lora={"rank": 4, "alpha": 6}, adapter=str(tmp_path))
    assert torch.equal(again.encode(REPORTS), tower.encode(REPORTS))


@pytest.fixture
def adapter(tmp_path, folder):
    tower = make(source=str(folder), lora={"rank": 4})
    stir(tower)
    tower.save_adapter(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize(
    ("lora", "says"),
    [
        ({"rank": 8}, "adapter of rank 4, lora.rank is 8"),
        ({"rank": 4, "alpha": 8}, "adapter of alpha 32.0, lora.alpha is 8.0"),
        ({"rank": 4, "targets": "attention"}, r"missing none; unexpected layers\.0\.mlp\.down_proj\.lora_A\.weight"),
    ],
)
def test_an_adapter_of_other_shape_is_refused(folder, adapter, lora, says):
    with pytest.raises(ConfigError, match=says):
        make(source=str(folder), lora=lora, adapter=str(adapter))


def test_an_adapter_of_another_base_is_refused(tmp_path, adapter):
    make(seed=8, scratch={"kv_heads": 2}).save(tmp_path / "other")
    with pytest.raises(ConfigError, match="the adapter of another base"):
        make(source=str(tmp_path / "other"), lora={"rank": 4}, adapter=str(adapter))
    make(seed=8, scratch={"width": 64, "kv_heads": 2}).save(tmp_path / "wide")
    (adapter / "fedcxr.json").unlink()  # one of somebody else's making: only the shapes tell
    with pytest.raises(ConfigError, match=r"this base needs .*another base"):
        make(source=str(tmp_path / "wide"), lora={"rank": 4}, adapter=str(adapter))


def test_a_broken_adapter_folder_is_refused(folder, adapter, tmp_path):
    def refused(says):
        with pytest.raises(ConfigError, match=says):
            make(source=str(folder), lora={"rank": 4}, adapter=str(adapter))

    about = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**about, "use_dora": True}))
    refused("use_dora is set")
    (adapter / "adapter_config.json").write_text(json.dumps(about))
    stored = load_file(adapter / "adapter_model.safetensors")
    stored.pop(next(iter(stored)))
    save_file(stored, adapter / "adapter_model.safetensors")
    refused("missing layers")
    (adapter / "adapter_model.safetensors").write_bytes(b"\x80\x04pickle")
    refused("not a whole safetensors file")
    (adapter / "adapter_config.json").write_text("{")
    refused("not valid JSON")
    (adapter / "adapter_config.json").unlink()
    refused("no adapter_config.json")


def test_a_tower_without_adapters_has_none_to_save(tower, tmp_path):
    with pytest.raises(ValueError, match="set lora"):
        tower.save_adapter(tmp_path)
