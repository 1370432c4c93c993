from __future__ import annotations

import collections
import copy

import numpy as np
import pytest
import torch

from models.config import ConfigError
from models.text.pooling import LatentAttention
from models.text.tokens import EmptyText
from tests.models.text.towers import FAMILIES, REPORTS, config, make, stir


def one_by_one(tower, texts, instruction=None):
    """Each text in a batch of its own."""
    with torch.no_grad():
        return torch.cat([tower(tower.tokens.collate(tower.tokens.rows([t], instruction))) for t in texts])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pooling", ["mean", "last", "first", "latent"])
def test_a_batch_gives_what_each_text_gives_alone(family, pooling):
    tower = make(scratch={"family": family}, pooling=pooling, latents=8, latent_heads=4, batch_tokens=128)
    found = tower.encode(REPORTS, "Summarize")
    assert found.shape == (len(REPORTS), tower.width) and found.dtype == torch.float32
    assert (found - one_by_one(tower, REPORTS, "Summarize")).abs().max() < 1e-5


@pytest.mark.parametrize("pooling", ["mean", "last", "latent"])
def test_the_side_of_the_padding_does_not_matter(pooling):
    tower = make(pooling=pooling, latents=8, latent_heads=4)
    rows = tower.tokens.rows(REPORTS, "Summarize")
    with torch.no_grad():
        right, left = tower(tower.tokens.collate(rows)), tower(tower.tokens.collate(rows, left=True))
    assert (right - left).abs().max() < 1e-5


def test_mean_is_over_the_texts_own_tokens(tower):
    row = tower.tokens.rows(REPORTS[:1], "Summarize the findings")[0]
    with torch.no_grad():
        states = tower.states(tower.tokens.collate([row]))[0]
    assert torch.allclose(
        tower.encode(REPORTS[:1], "Summarize the findings")[0], states[row.start : row.stop].mean(0), atol=1e-6
    )
    assert not torch.allclose(tower.encode(REPORTS[:1], "Summarize the findings")[0], states.mean(0), atol=1e-3)


def test_mean_over_everything_where_a_model_was_trained_so():
    tower = make(pooled="everything")
    row = tower.tokens.rows(REPORTS[:1], "Sum")[0]
    with torch.no_grad():
        states = tower.states(tower.tokens.collate([row]))[0]
    assert torch.allclose(tower.encode(REPORTS[:1], "Sum")[0], states.mean(0), atol=1e-6)


def test_an_instruction_is_attended_to(tower):
    plain, told = tower.encode(REPORTS), tower.encode(REPORTS, "Determine the change of the effusion")
    assert ((plain - told).abs().amax(1) > 1e-4).all()
    each = tower.encode(REPORTS[:2], ["", "Determine the change of the effusion"])
    assert torch.allclose(each[0], plain[0], atol=1e-6) and torch.allclose(each[1], told[1], atol=1e-6)


def test_the_order_given_comes_back(tower):
    order = np.random.default_rng(0).permutation(len(REPORTS))
    assert torch.allclose(tower.encode([REPORTS[i] for i in order]), tower.encode(REPORTS)[order], atol=1e-6)


def test_equal_texts_are_computed_once(tower):
    seen = []
    real = tower.embed_rows
    tower.embed_rows = lambda rows: seen.append(len(rows)) or real(rows)
    try:
        found = tower.encode([REPORTS[0], REPORTS[1], REPORTS[0], REPORTS[0]])
    finally:
        del tower.embed_rows
    assert seen == [2]
    assert torch.equal(found[0], found[2]) and torch.equal(found[0], found[3]) and not torch.equal(found[0], found[1])


def test_no_text_at_all(tower):
    assert tower.encode([]).shape == (0, tower.width)


def test_normalised(tower):
    assert torch.allclose(tower.encode(REPORTS, normalize=True).norm(dim=1), torch.ones(len(REPORTS)))


@pytest.mark.parametrize("text", ["日本語", "🫁", "\x00\x01", "a\ud800", "x" * 20_000, "FINDINGS:", "XXXX XXXX"])
def test_odd_texts_have_finite_vectors(tower, text):
    assert tower.encode([text]).isfinite().all()


def test_empty_texts_are_named(tower):
    with pytest.raises(EmptyText, match="at positions 1"):
        tower.encode(["fine", "", "fine"])


def test_bfloat16_is_close(tower):
    exact, fast = tower.encode(REPORTS), tower.encode(REPORTS, precision="bfloat16")
    assert fast.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(exact, fast).min() > 0.999
    half = make(dtype="bfloat16", lora={"rank": 4})
    assert {p.dtype for p in half.components()["text_lora"].parameters()} == {torch.float32}
    assert half.trunk.embed_tokens.weight.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(exact, half.encode(REPORTS)).min() > 0.999


def test_encoding_leaves_the_mode_as_it_was_and_uses_no_dropout():
    tower = make(lora={"rank": 4, "dropout": 0.5})
    stir(tower)
    expected = tower.encode(REPORTS)
    tower.train()
    tower.trunk.norm.eval()
    assert torch.equal(tower.encode(REPORTS), expected)
    assert tower.training and tower.trunk.layers[0].training and not tower.trunk.norm.training


def test_components_without_adapters():
    assert list(make().components()) == ["text"]
    tower = make(pooling="latent", latents=8, latent_heads=4, project=12)
    assert list(tower.components()) == ["text", "text_pool", "text_proj"]
    assert tower.width == 12 and tower.encode(REPORTS).shape[1] == 12


def test_components_with_adapters_leave_the_trunk_out():
    tower = make(lora={"rank": 4}, project=12)
    parts = tower.components()
    assert list(parts) == ["text_lora", "text_proj"]
    names = set(parts["text_lora"].state_dict())
    assert len(names) == 2 * 7 * 2
    assert "layers.1.mlp.down_proj.lora_B.weight" in names
    owned = {id(p) for p in parts["text_lora"].parameters()}
    assert owned == {id(p) for n, p in tower.trunk.named_parameters() if ".lora_" in n}


def test_a_copy_has_adapters_of_its_own():
    tower = make(lora={"rank": 4})
    before = tower.encode(REPORTS)
    other = copy.deepcopy(tower)
    stir(other)
    assert torch.equal(tower.encode(REPORTS), before)
    assert not torch.allclose(other.encode(REPORTS), before, atol=1e-3)


def test_the_mode_of_the_component_reaches_the_adapters_dropout():
    tower = make(lora={"rank": 4, "dropout": 0.5})
    stir(tower)
    tower.components()["text_lora"].train()
    assert not torch.equal(tower.embed(REPORTS), tower.embed(REPORTS))
    assert not tower.trunk.layers[0].self_attn.training
    tower.eval()
    assert torch.equal(tower.embed(REPORTS), tower.embed(REPORTS))


def test_fresh_adapters_change_nothing():
    assert torch.equal(make(lora={"rank": 4}).encode(REPORTS), make().encode(REPORTS))


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_dropout_by_request_only(family):
    tower = make(scratch={"family": family})
    still = tower.embed(REPORTS)
    tower.drop_attention(0.3)
    one, other = tower.embed(REPORTS), tower.embed(REPORTS)
    assert not torch.equal(one, other)
    tower.eval()
    assert torch.equal(tower.embed(REPORTS), still)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["llama", "gemma3", "modernbert", "bert"])
def test_checkpointing_gives_the_same_gradients(family, kernel):
    """With and without attention dropout, which must fall on the same weights when the blocks run again."""
    grads = {}
    for checkpoint in (False, True):
        tower = make(scratch={"family": family}, lora={"rank": 4}, checkpoint=checkpoint, attention=kernel)
        stir(tower)
        part = tower.components()["text_lora"]
        for rate in (0.0, 0.3):
            part.zero_grad(set_to_none=True)
            tower.drop_attention(rate)
            runs = collections.Counter()
            block = next(
                m for m in tower.trunk.modules() if hasattr(m, "gradient_checkpointing") and m is not tower.trunk
            )
            hook = next(iter(block.children())).register_forward_hook(lambda *_, runs=runs: runs.update("x"))
            torch.manual_seed(3)
            tower.embed(REPORTS).square().sum().backward()
            hook.remove()
            grads.setdefault(rate, []).append(([p.grad.clone() for p in part.parameters()], runs["x"]))
    for plain, saved in grads.values():
        assert saved[1] == 2 * plain[1]  # the blocks did run twice
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain[0], saved[0]))
        assert any(a.abs().max() > 0 for a in plain[0])


def test_checkpointing_is_off_where_no_gradient_is_wanted():
    tower = make(lora={"rank": 4}, checkpoint=True)
    assert torch.equal(tower.encode(REPORTS), make(lora={"rank": 4}).encode(REPORTS))
    assert not tower.trunk.layers[0].training


def test_the_base_hash_is_of_the_trunk_alone():
    plain, adapted = make(), make(lora={"rank": 4}, project=8)
    assert plain.base_hash == adapted.base_hash != make(seed=1).base_hash
    stir(adapted)
    assert adapted.base_hash == plain.base_hash
    with torch.no_grad():
        plain.trunk.norm.weight.add_(1)
    assert plain.base_hash == adapted.base_hash  # as it was built


def test_other_weights_than_announced_are_refused():
    digest = make().base_hash
    make(weights_sha256=digest, lora={"rank": 2})
    with pytest.raises(ConfigError, match="weights_sha256"):
        make(seed=1, weights_sha256=digest)


def test_latent_pooling_starts_as_published():
    tower = make(pooling="latent", latents=400, latent_heads=4)
    assert isinstance(tower.pool, LatentAttention)
    assert abs(float(tower.pool.latents.detach().std()) - 1) < 0.02


def test_the_same_seed_the_same_tower():
    wish = {"lora": {"rank": 4}, "pooling": "latent", "latents": 8, "latent_heads": 4, "project": 8}
    one, other, third = make(seed=5, **wish), make(seed=5, **wish), make(seed=6, **wish)
    assert torch.equal(one.encode(REPORTS), other.encode(REPORTS))
    assert not torch.equal(one.encode(REPORTS), third.encode(REPORTS))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"scratch": None}, "give exactly one of the two; given: neither"),
        ({"source": "x", "scratch": {}}, "given: source, scratch"),
        ({"download": True}, "scratch and download"),
        ({"layout": "llm2clip"}, "scratch and layout"),
        ({"max_tokens": 600, "batch_tokens": 9000}, "scratch.positions 512"),
        ({"max_tokens": 2}, "max_tokens 2"),
        ({"batch_tokens": 64}, "batch_tokens 64 and max_tokens 128"),
        ({"pooling": "latent", "latents": 0}, "latents 0"),
        ({"lora": {"rank": 0}}, "rank 0"),
        ({"lora": {"dropout": 1.0}}, "dropout 1.0"),
        ({"lora": {"targets": []}}, "targets: empty"),
        ({"scratch": {"width": 30}}, "width 30 and heads 4"),
        ({"scratch": {"width": 36, "heads": 4, "family": "llama"}}, "even width"),
        ({"scratch": {"kv_heads": 3}}, "heads 4 and kv_heads 3"),
        ({"scratch": {"vocabulary": 10}}, "vocabulary 10"),
        ({"scratch": {"family": "gpt"}}, "family"),
        ({"poling": "mean"}, "did you mean 'pooling'"),
    ],
)
def test_contradictions_name_the_keys(values, says):
    from models.config import build
    from models.text.config import TextConfig

    with pytest.raises(ConfigError) as refused:
        config(**values) if values.get("scratch", 0) is not None and "source" not in values else build(
            TextConfig, values
        )
    assert says in str(refused.value)


def test_a_kernel_that_the_family_lacks_is_said():
    with pytest.raises(ConfigError, match="attention 'sdpa'"):
        make(scratch={"family": "gemma2"}, attention="sdpa")


def test_latent_heads_must_divide():
    with pytest.raises(ConfigError, match="latent_heads 5"):
        make(pooling="latent", latent_heads=5)
