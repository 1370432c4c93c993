"""Folders and names: what is read, what is refused and why, and that no network, pickle or foreign code is touched."""

from __future__ import annotations

import json
import shutil
import socket

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.config import ConfigError
from models.text.loading import find_folder, stored_names, weight_files
from tests.models.text.towers import REPORTS, make


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


def refused(path, says, **values):
    with pytest.raises(ConfigError, match=says) as error:
        make(source=str(path), **values)
    assert "\n" not in str(error.value)


def change_weights(path, change):
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def change_config(path, **values):
    about = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**about, **values}))


def test_a_folder_without_a_network(folder, monkeypatch):
    def no_network(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", no_network)
    monkeypatch.setattr(socket, "create_connection", no_network)
    tower = make(source=str(folder), seed=7)
    assert torch.equal(tower.encode(REPORTS), make(seed=1, scratch={"kv_heads": 2}).encode(REPORTS))


def test_a_short_name_below_the_library(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("FEDCXR_MODELS", str(folder.parent))
    assert find_folder(make(source=folder.name).cfg) == folder
    refused("elsewhere", "nor below FEDCXR_MODELS")


def test_a_hub_name_needs_leave(monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("downloaded without leave"))
    refused("microsoft/some-model", "set download: true")


def test_a_hub_name_with_leave(monkeypatch, folder):
    asked = []
    fetch = lambda name, **options: asked.append((name, options)) or str(folder)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    make(source="some/model", download=True, revision="abc")
    name, options = asked[0]
    assert name == "some/model" and options["revision"] == "abc"
    assert not any(pattern.endswith((".py", ".bin", ".pt", "*")) for pattern in options["allow_patterns"])


def test_a_hub_that_says_no(monkeypatch):
    def fetch(*_, **__):
        raise OSError("secret-token in this text")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    with pytest.raises(ConfigError, match="the hub did not give it") as error:
        make(source="some/model", download=True)
    assert "secret-token" not in str(error.value)


def test_code_that_comes_with_a_model_is_not_run(copy, tmp_path):
    trap = f"open({str(tmp_path / 'ran')!r}, 'w').close()\nfrom transformers import LlamaModel as Own, LlamaConfig as OwnConfig\n"
    (copy / "own.py").write_text(trap)
    change_config(copy, auto_map={"AutoModel": "own.Own", "AutoConfig": "own.OwnConfig"})
    make(source=str(copy))  # of a family the library knows, by the library's class
    change_config(copy, model_type="own")
    refused(copy, "'own' cannot be used without code that comes with it")
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_are_not_opened(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    refused(copy, r"only pytorch_model\.bin, which is pickled and never read")


def test_missing_and_unexpected_names_are_told(copy):
    def rename(tensors):
        tensors["layers.0.mlp.gate.weight"] = tensors.pop("layers.0.mlp.gate_proj.weight")

    change_weights(copy, rename)
    refused(copy, r"missing layers\.0\.mlp\.gate_proj\.weight; unexpected layers\.0\.mlp\.gate\.weight")


def test_weights_of_another_size_are_refused(copy):
    change_weights(copy, lambda t: t.update({"norm.weight": torch.ones(5)}))
    refused(copy, "cannot be read as 'llama'")


def test_a_config_of_another_depth_is_refused(copy):
    change_config(copy, num_hidden_layers=3)
    refused(copy, r"missing layers\.2\.input_layernorm\.weight.* and 5 more")
    change_config(copy, num_hidden_layers=1)
    refused(copy, r"unexpected layers\.1\.")


def test_an_adapter_inside_the_weights_is_named(copy):
    change_weights(copy, lambda t: t.update({"layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2, 32)}))
    refused(copy, "these are of an adapter")


def test_broken_files_are_named(copy):
    (copy / "model.safetensors").write_bytes(b"junk")
    refused(copy, r"model\.safetensors of .* not a whole safetensors file")
    (copy / "model.safetensors").unlink()
    refused(copy, r"no model\.safetensors")
    (copy / "config.json").write_text("{")
    refused(copy, "not the configuration of a model")
    (copy / "config.json").unlink()
    refused(copy, r"no config\.json")


def test_a_folder_without_a_tokenizer(copy):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    refused(copy, "no tokenizer can be read")


def test_a_broken_tokenizer(copy):
    (copy / "tokenizer.json").write_text('{"model": 3}')
    refused(copy, "no tokenizer can be read")


def test_a_tokenizer_of_an_unknown_class_is_read_by_its_file(copy):
    about = json.loads((copy / "tokenizer_config.json").read_text())
    about |= {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}}
    (copy / "tokenizer_config.json").write_text(json.dumps(about))
    assert torch.equal(make(source=str(copy)).encode(REPORTS), make(seed=1, scratch={"kv_heads": 2}).encode(REPORTS))


def test_a_tokenizer_of_another_model(copy, tmp_path):
    make(scratch={"vocabulary": 1300}).tokens.save(copy)
    refused(copy, "the tokenizer has 1300 tokens and the model 1200")


def test_more_tokens_than_positions(folder):
    refused(folder, "max_tokens 600 and the model's 512 positions", max_tokens=600)


def test_an_adapter_folder_is_no_model(tmp_path, folder):
    make(source=str(folder), lora={"rank": 2}).save_adapter(tmp_path / "a")
    refused(tmp_path / "a", "holds an adapter")


def test_an_encoder_with_a_decoder_is_refused(tmp_path):
    from transformers import T5Config

    T5Config(d_model=8, num_layers=1).save_pretrained(tmp_path)
    refused(tmp_path, "an encoder with a decoder")


def test_weights_in_several_files(copy):
    tensors = load_file(copy / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for name, held in parts.items():
        save_file({n: tensors[n] for n in held}, copy / name, metadata={"format": "pt"})
    (copy / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {n: name for name, held in parts.items() for n in held}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert [p.name for p in weight_files(copy)] == sorted(parts) and stored_names(copy) == names
    assert torch.equal(make(source=str(copy)).encode(REPORTS), make(seed=1, scratch={"kv_heads": 2}).encode(REPORTS))
    (copy / "model-00002-of-00002.safetensors").unlink()
    refused(copy, r"model-00002-of-00002\.safetensors is missing")


def test_the_index_cannot_name_files_elsewhere(copy, tmp_path):
    shutil.copy(copy / "model.safetensors", tmp_path / "outside.safetensors")
    index = {"weight_map": {"norm.weight": "../outside.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match=r"outside\.safetensors is missing"):
        weight_files(copy)


@pytest.mark.parametrize("family", ["llama", "gemma2", "modernbert", "bert"])
def test_the_language_head_is_the_library_s(family):
    """Scores equal those of the library's whole language model."""
    tower = make(scratch={"family": family}, language_head=True)
    batch = tower.tokens.collate(tower.tokens.rows(REPORTS[:1]))
    torch.manual_seed(0)
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    auto = AutoModelForMaskedLM if family in ("bert", "modernbert") else AutoModelForCausalLM
    whole = auto.from_config(tower.trunk.config).eval()
    with torch.no_grad():
        assert torch.allclose(tower.head(tower.states(batch)), whole(input_ids=batch.ids).logits, atol=1e-5)
    assert tower.head.shift == (family in ("llama", "gemma2"))


def test_a_head_that_is_not_there_is_missed(copy):
    change_config(copy, tie_word_embeddings=False)
    make(source=str(copy))
    refused(copy, r"missing lm_head\.weight.*language_head: false", language_head=True)


def test_loading_is_quiet(folder, capfd):
    make(source=str(folder))
    assert capfd.readouterr() == ("", "")
