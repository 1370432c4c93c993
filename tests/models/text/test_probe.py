"""Every family, attention kernel and padding side: each token sees the last one, and none sees padding."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoModel, Gemma3TextConfig, LlamaConfig

from models.config import ConfigError
from models.text.probe import check_bidirectional
from tests.models.text.towers import FAMILIES, make

KERNELS = [(f, k) for f in FAMILIES for k in ("eager", "sdpa") if (f, k) != ("gemma2", "sdpa")]
SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


def masks() -> dict[str, torch.Tensor | None]:
    ones = torch.ones(2, 7, dtype=torch.long)
    left, right = ones.clone(), ones.clone()
    left[1, :2], right[1, 5:] = 0, 0
    return {"none": None, "ones": ones, "left": left, "right": right}


@torch.no_grad()
def reach(trunk: nn.Module, mask: torch.Tensor | None) -> torch.Tensor:
    """[2,7] how much each token's state moves when the last real token of its row is another."""
    ids = torch.arange(14).view(2, 7) + 20
    real = torch.ones(2, 7, dtype=torch.long) if mask is None else mask
    last = 6 - real.flip(1).argmax(1)
    other = ids.clone()
    other[torch.arange(2), last] = 5
    moved = trunk(input_ids=other, attention_mask=mask)[0] - trunk(input_ids=ids, attention_mask=mask)[0]
    before = (torch.arange(7)[None] < last[:, None]) & real.bool()
    return moved.abs().amax(-1)[before]


@pytest.mark.parametrize(("family", "kernel"), KERNELS)
def test_every_earlier_token_sees_the_last(family, kernel):
    tower = make(scratch={"family": family, "depth": 3, "vocabulary": 300}, attention=kernel)
    assert tower.trunk.config._attn_implementation == kernel
    for name, mask in masks().items():
        assert (reach(tower.trunk, mask) > 0).all(), name


@pytest.mark.parametrize(("family", "kernel"), KERNELS)
@torch.no_grad()
def test_padding_has_no_influence_on_either_side(family, kernel):
    tower = make(scratch={"family": family, "depth": 3, "vocabulary": 300}, attention=kernel)
    ids = torch.arange(10).view(2, 5) + 20
    alone = tower.trunk(input_ids=ids[1:, :3])[0]
    for filler in (0, 7):
        right = ids.clone()
        right[1, 3:] = filler
        mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
        assert torch.allclose(tower.trunk(input_ids=right, attention_mask=mask)[0][1, :3], alone[0], atol=2e-5)
        if family == "bert":
            continue  # its positions are absolute: our batches are padded on the right
        left = torch.cat([torch.full((1, 2), filler), ids[1:, :3]], 1)
        both = torch.cat([ids[:1], left])
        states = tower.trunk(input_ids=both, attention_mask=mask.flip(1))[0]
        assert torch.allclose(states[1, 2:], alone[0], atol=2e-5)


def test_a_window_stays_a_window_to_both_sides():
    tower = make(scratch={"family": "mistral", "depth": 1, "window": 3, "vocabulary": 300})
    ids = torch.arange(12)[None] + 20
    other = ids.clone()
    other[0, 6] = 5
    with torch.no_grad():
        moved = (tower.trunk(input_ids=other)[0] - tower.trunk(input_ids=ids)[0]).abs().amax(-1)[0] > 0
    seen = moved.nonzero().flatten().tolist()
    assert 5 in seen and 7 in seen and 0 not in seen and 11 not in seen


def test_a_causal_trunk_is_refused():
    with pytest.raises(ConfigError, match="LlamaModel: attention is causal"):
        check_bidirectional(AutoModel.from_config(LlamaConfig(**SIZES)), 97)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_the_switch_on_the_modules_alone_is_caught(kernel):
    """The trap: with sdpa and no padding it looks bidirectional."""
    trunk = AutoModel.from_config(LlamaConfig(**SIZES), attn_implementation=kernel).eval()
    for layer in trunk.layers:
        layer.self_attn.is_causal = False
    assert bool((reach(trunk, None) > 0).all()) == (kernel == "sdpa")
    assert (reach(trunk, masks()["right"]) == 0).all()
    with pytest.raises(ConfigError, match="causal"):
        check_bidirectional(trunk, 97)


def test_leaking_padding_is_caught():
    class Leaky(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(50, 8)

        def forward(self, input_ids, attention_mask):
            states = self.embed(input_ids)
            return type("Out", (), {"last_hidden_state": states + states.mean(1, keepdim=True)})

    with pytest.raises(ConfigError, match="under the padding"):
        check_bidirectional(Leaky(), 50)


def test_the_probe_leaves_the_mode_and_the_random_stream_alone():
    about = Gemma3TextConfig(**SIZES, head_dim=8)
    about.is_causal = False
    trunk = AutoModel.from_config(about).train()
    state = torch.get_rng_state()
    check_bidirectional(trunk, 97)
    assert all(module.training for module in trunk.modules())
    assert torch.equal(state, torch.get_rng_state())
