"""Released checkpoints: twins with the published names and small sizes, against the published forward pass."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaModel

from models.config import ConfigError
from models.text.config import Scratch
from models.text.scratch import make_tokenizer
from tests.models.text.towers import REPORTS, make

POOL = {
    "latents": (512, 32),
    "multihead_attn.in_proj_weight": (96, 32),
    "multihead_attn.in_proj_bias": (96,),
    "multihead_attn.out_proj.weight": (32, 32),
    "multihead_attn.out_proj.bias": (32,),
    "mlp.0.weight": (32, 32),
    "mlp.0.bias": (32,),
    "mlp.2.weight": (32, 32),
    "mlp.2.bias": (32,),
}


def llama_twin(folder, prefix="model.", pool=True, dtype=torch.bfloat16):
    """Layout of the released Llama encoders: config with code of its own, weights under ``prefix``."""
    folder.mkdir()
    tokenizer = make_tokenizer(Scratch(vocabulary=1200))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    about = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    trunk = LlamaModel(about).to(dtype)
    tensors = {f"{prefix}{name}": value for name, value in trunk.state_dict().items()}
    if pool:
        tensors |= {f"latent_attn.{name}": torch.randn(shape).to(dtype) * 0.2 for name, shape in POOL.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    about.architectures, about.dtype = ["LlamaEncoderModel"], dtype
    plain = about.to_dict() | {"auto_map": {"AutoModel": "modeling_own.LlamaEncoderModel"}}
    (folder / "config.json").write_text(json.dumps(plain))
    return folder


def released_vectors(folder, texts, instruction):
    """As released: left padding, the last n positions, attention and MLP over each text by itself, then the mean."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.padding_side, tokenizer.pad_token = "left", tokenizer.eos_token
    about = LlamaConfig.from_pretrained(folder)
    about.is_causal = False
    trunk = LlamaModel.from_pretrained(folder, config=about, dtype=torch.float32).eval()
    p = {
        n.removeprefix("latent_attn."): t.float()
        for n, t in load_file(folder / "model.safetensors").items()
        if "latent" in n
    }
    attention = torch.nn.MultiheadAttention(32, 8, batch_first=True)
    attention.load_state_dict(
        {n.removeprefix("multihead_attn."): t for n, t in p.items() if n.startswith("multihead_attn.")}
    )
    coded = tokenizer([f"{instruction}; {text}" for text in texts], return_tensors="pt", padding=True)
    out = []
    with torch.no_grad():
        states = trunk(input_ids=coded["input_ids"], attention_mask=coded["attention_mask"])[0]
        for row, text in zip(states, texts):
            count = len(tokenizer(" " + text, add_special_tokens=False)["input_ids"])
            latents = p["latents"][None]
            seen = attention(row[None], latents, latents)[0][0]
            inner = torch.nn.functional.gelu(seen @ p["mlp.0.weight"].T + p["mlp.0.bias"])
            out.append((inner @ p["mlp.2.weight"].T + p["mlp.2.bias"])[-count:].mean(0))
    return torch.stack(out)


def test_llm2vec4cxr_is_read_whole(tmp_path):
    folder = llama_twin(tmp_path / "twin")
    tower = make(source=str(folder), layout="llm2vec4cxr", pooling="latent")
    expected = released_vectors(folder, REPORTS, "Retrieve similar sentences")
    assert (tower.encode(REPORTS, "Retrieve similar sentences") - expected).abs().max() < 1e-5
    stored = load_file(folder / "model.safetensors")
    assert all(torch.equal(tower.pool.state_dict()[n], stored[f"latent_attn.{n}"].float()) for n in POOL)


def test_llm2vec4cxr_with_mean_pooling_as_in_the_released_scripts(tmp_path):
    tower = make(source=str(llama_twin(tmp_path / "twin")), layout="llm2vec4cxr")
    assert tower.pool is None and tower.encode(REPORTS).isfinite().all()


def test_llm2vec4cxr_under_the_plain_layout_says_which_it_is(tmp_path):
    folder = llama_twin(tmp_path / "twin")
    with pytest.raises(ConfigError, match=r"unexpected latent_attn\.latents.*these look like layout: llm2vec4cxr"):
        make(source=str(folder), pooling="latent")


def test_llm2vec4cxr_without_its_pooling_is_refused(tmp_path):
    folder = llama_twin(tmp_path / "twin", pool=False)
    with pytest.raises(ConfigError, match=r"no pooling tensors \(latent_attn\.\*\)"):
        make(source=str(folder), layout="llm2vec4cxr", pooling="latent")


def test_llm2vec4cxr_with_pooling_of_another_size_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"latents \(\(512, 32\) there, \(64, 32\) here\)"):
        make(source=str(llama_twin(tmp_path / "twin")), layout="llm2vec4cxr", pooling="latent", latents=64)


def test_llm2vec4cxr_can_go_on_with_masked_tokens(tmp_path):
    """No head is stored: it is the embedding table."""
    tower = make(source=str(llama_twin(tmp_path / "twin")), layout="llm2vec4cxr", language_head=True)
    assert tower.head.layers[0].weight is tower.trunk.embed_tokens.weight


@pytest.mark.parametrize("prefix", ["", "model."])
def test_the_llm2clip_base_is_read_under_either_prefix(tmp_path, prefix):
    folder = llama_twin(tmp_path / "twin", prefix, pool=False, dtype=torch.float32)
    tower = make(source=str(folder), layout="llm2clip")
    stored = load_file(folder / "model.safetensors")
    assert all(torch.equal(v, stored[f"{prefix}{n}"]) for n, v in tower.trunk.state_dict().items())


def test_a_released_llama_layout_needs_a_llama(tmp_path):
    make(scratch={"family": "bert"}).save(tmp_path)
    with pytest.raises(ConfigError, match="layout 'llm2clip' and model type 'bert'"):
        make(source=str(tmp_path), layout="llm2clip")


def cxr_bert_twin(folder):
    """Layout of CXR-BERT: a masked-language BERT, a projection of the class token, a tokenizer by its word list."""
    folder.mkdir()
    words = sorted({w.strip(",.;/").lower() for r in REPORTS for w in r.split()})
    letters = [c for x in "abcdefghijklmnopqrstuvwxyz,.;/" for c in (x, f"##{x}")]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys([*letters, *words])]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    special = {"tokenizer_class": "CXRBertTokenizer", "do_lower_case": True}
    special |= {"auto_map": {"AutoTokenizer": ["configuration_cxrbert.CXRBertTokenizer", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    torch.manual_seed(0)
    about = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    bert = BertForMaskedLM(about).eval()
    head = {
        "dense_to_hidden.weight": torch.randn(16, 32),
        "dense_to_hidden.bias": torch.randn(16),
        "LayerNorm.weight": torch.rand(16) + 0.5,
        "LayerNorm.bias": torch.randn(16),
        "dense_to_output.weight": torch.randn(16, 16),
        "dense_to_output.bias": torch.randn(16),
    }
    tensors = {n: v.clone() for n, v in bert.state_dict().items()} | {
        f"cls_projection_head.{n}": v for n, v in head.items()
    }
    tensors["bert.embeddings.position_ids"] = torch.arange(512)[None]  # older files hold it
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    plain = about.to_dict() | {"model_type": "cxr-bert", "projection_size": 16, "architectures": ["CXRBertModel"]}
    plain["auto_map"] = {
        "AutoConfig": "configuration_cxrbert.CXRBertConfig",
        "AutoModel": "modeling_cxrbert.CXRBertModel",
    }
    (folder / "config.json").write_text(json.dumps(plain))
    return bert, head


def test_cxr_bert_is_read_whole(tmp_path):
    bert, head = cxr_bert_twin(tmp_path / "twin")
    tower = make(source=str(tmp_path / "twin"), layout="cxr-bert", pooling="first")
    assert tower.width == 16 and list(tower.components()) == ["text", "text_proj"]
    ids = torch.tensor([tower.tokens.tokenizer(REPORTS[1])["input_ids"]])
    assert ids[0, 0] == 2 and ids[0, -1] == 3
    with torch.no_grad():
        token = bert.bert(input_ids=ids)[0][0, 0]
        hidden = torch.nn.functional.gelu(head["dense_to_hidden.weight"] @ token + head["dense_to_hidden.bias"])
        normed = torch.nn.functional.layer_norm(hidden, (16,), head["LayerNorm.weight"], head["LayerNorm.bias"], 1e-12)
        expected = head["dense_to_output.weight"] @ normed + head["dense_to_output.bias"]
    assert torch.allclose(tower.encode(REPORTS[1:2])[0], expected, atol=1e-5)
    assert torch.allclose(tower.encode([REPORTS[1].upper()])[0], expected, atol=1e-5)  # it reads lower case


def test_cxr_bert_keeps_its_masked_language_head(tmp_path):
    bert, _ = cxr_bert_twin(tmp_path / "twin")
    tower = make(source=str(tmp_path / "twin"), layout="cxr-bert", pooling="first", language_head=True)
    batch = tower.tokens.collate(tower.tokens.rows(REPORTS[:1]))
    with torch.no_grad():
        assert torch.allclose(tower.head(tower.states(batch)), bert(input_ids=batch.ids).logits, atol=1e-5)
    assert tower.head.shift == 0


def test_cxr_bert_under_another_layout_and_the_other_way(tmp_path, folder):
    cxr_bert_twin(tmp_path / "twin")
    with pytest.raises(ConfigError, match="layout 'huggingface' and model type 'cxr-bert'"):
        make(source=str(tmp_path / "twin"))
    with pytest.raises(ConfigError, match="layout 'cxr-bert' and model type 'llama'"):
        make(source=str(folder), layout="cxr-bert")


def test_cxr_bert_without_its_projection_is_refused(tmp_path):
    cxr_bert_twin(tmp_path / "twin")
    path = tmp_path / "twin" / "model.safetensors"
    save_file({n: v for n, v in load_file(path).items() if "projection" not in n}, path, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"no projection tensors \(cls_projection_head\.\*\)"):
        make(source=str(tmp_path / "twin"), layout="cxr-bert", pooling="first")
