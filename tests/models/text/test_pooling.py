"""Pooling against literal loops over texts and tokens, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.text.pooling import LatentAttention, first_pool, last_pool, mean_pool


def case(seed: int, texts: int = 5, longest: int = 9, width: int = 16):
    g = torch.Generator().manual_seed(seed)
    states = torch.randn(texts, longest, width, generator=g)
    mask = torch.zeros(texts, longest, dtype=torch.bool)
    span = torch.zeros_like(mask)
    for i in range(texts):
        n = int(torch.randint(2, longest + 1, (), generator=g))
        at = 0 if seed % 2 else longest - n
        mask[i, at : at + n] = True
        start = at + int(torch.randint(0, n, (), generator=g))
        span[i, start : at + n] = True
    return states, mask, span


def literal_latent(pool: LatentAttention, states: torch.Tensor, span: torch.Tensor) -> torch.Tensor:
    """The definition, text by text and token by token: softmax attention of 8 heads over the latents, MLP, mean."""
    p = {name: value.detach().double() for name, value in pool.state_dict().items()}
    heads = pool.multihead_attn.num_heads
    width = states.shape[-1]
    wq, wk, wv = p["multihead_attn.in_proj_weight"].split(width)
    bq, bk, bv = p["multihead_attn.in_proj_bias"].split(width)
    keys, values = p["latents"] @ wk.T + bk, p["latents"] @ wv.T + bv
    out = []
    for text, chosen in zip(states.double(), span):
        total = torch.zeros(width, dtype=torch.float64)
        for token in text[chosen]:
            query, parts = token @ wq.T + bq, []
            for h in range(heads):
                at = slice(h * width // heads, (h + 1) * width // heads)
                weights = torch.softmax(keys[:, at] @ query[at] / math.sqrt(width // heads), 0)
                parts.append(weights @ values[:, at])
            seen = torch.cat(parts) @ p["multihead_attn.out_proj.weight"].T + p["multihead_attn.out_proj.bias"]
            inner = torch.nn.functional.gelu(seen @ p["mlp.0.weight"].T + p["mlp.0.bias"])
            total += inner @ p["mlp.2.weight"].T + p["mlp.2.bias"]
        out.append(total / int(chosen.sum()))
    return torch.stack(out)


@pytest.mark.parametrize("seed", range(4))
def test_latent_pooling_is_its_definition(seed):
    torch.manual_seed(seed)
    pool = LatentAttention(16, latents=12, heads=4)
    states, _, span = case(seed)
    found = pool(states, span)
    assert found.dtype == torch.float32
    assert (found - literal_latent(pool, states, span)).abs().max() < 1e-6


def test_latent_pooling_is_the_released_loop_over_texts():
    """The released form: each text by itself, all its positions at once, then the mean."""
    torch.manual_seed(0)
    pool = LatentAttention(64, latents=32, heads=8)
    states, _, span = case(3, width=64)
    rows = []
    for text, chosen in zip(states, span):
        latents = pool.latents[None]
        seen, _ = pool.multihead_attn(text[None], latents, latents)
        rows.append(pool.mlp(seen)[0][chosen].mean(0))
    assert (pool(states, span) - torch.stack(rows)).abs().max() < 1e-6


def test_the_released_parameter_names():
    pool = LatentAttention(16, latents=12, heads=4)
    assert {name: tuple(value.shape) for name, value in pool.state_dict().items()} == {
        "latents": (12, 16),
        "multihead_attn.in_proj_weight": (48, 16),
        "multihead_attn.in_proj_bias": (48,),
        "multihead_attn.out_proj.weight": (16, 16),
        "multihead_attn.out_proj.bias": (16,),
        "mlp.0.weight": (16, 16),
        "mlp.0.bias": (16,),
        "mlp.2.weight": (16, 16),
        "mlp.2.bias": (16,),
    }


def test_the_released_size_has_26_million_parameters():
    with torch.device("meta"):
        pool = LatentAttention(2048)
    assert sum(p.numel() for p in pool.parameters()) == 512 * 2048 + 4 * 2048 * 2048 + 4 * 2048 + 2 * (
        2048 * 2048 + 2048
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000))
def test_mean_first_and_last_against_loops(seed):
    states, mask, span = case(seed)
    for i in range(len(states)):
        real = [t for t in range(states.shape[1]) if mask[i, t]]
        inside = [states[i, t].double() for t in range(states.shape[1]) if span[i, t]]
        assert torch.allclose(mean_pool(states, span)[i].double(), sum(inside) / len(inside), atol=1e-6)
        assert torch.equal(first_pool(states, mask)[i], states[i, real[0]])
        assert torch.equal(last_pool(states, mask)[i], states[i, real[-1]])


@pytest.mark.parametrize("pool", [mean_pool, LatentAttention(16, latents=12, heads=4)])
def test_what_stands_outside_the_span_does_not_count(pool):
    states, _, span = case(1)
    wild = torch.where(span[..., None], states, torch.full_like(states, float("nan")))
    assert torch.equal(pool(states, span), pool(wild, span))


def test_no_token_gives_no_number():
    states, _, span = case(1)
    span[2] = False
    found = mean_pool(states, span)
    assert found[2].isnan().all() and found[[0, 1, 3, 4]].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_sums_are_float32(dtype):
    states, _, span = case(2)
    assert mean_pool(states.to(dtype), span).dtype == torch.float32
    assert LatentAttention(16, 12, 4)(states.to(dtype), span).dtype == torch.float32


def test_gradients_reach_latents_and_states():
    pool = LatentAttention(16, latents=12, heads=4)
    states, _, span = case(2)
    states.requires_grad_()
    pool(states, span).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in pool.parameters())
    assert (states.grad.abs().sum(-1) > 0).equal(span)
