"""Attention maps against Hugging Face's own, and ACM's against the published layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.attention import NoAttention, comparisons, last_attention
from models.config import build
from models.released import read_released
from models.vision import resnet50, vit
from models.vision.acm import ACM
from tests.reference.acm import LiteralACM, ours_from_literal


def films(side: int = 32, channels: int = 3) -> torch.Tensor:
    return torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_last_attention_is_that_of_hugging_face(tmp_path, pool):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, image_size=32, patch_size=8, mlp_ratio=2
    )
    config._attn_implementation = "eager"
    theirs = transformers.Dinov2Model(config).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.3 * torch.randn_like(p))
    names = {
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "embeddings.position_embeddings": "pos_embed",
    }
    names |= {"embeddings.": "", "encoder.layer.": "blocks.", "attention.o_proj": "attn.proj", "layernorm.": "norm."}
    names |= {f"layer_scale{i}.lambda1": f"ls{i}.gamma" for i in (1, 2)}
    state = {}
    for name, value in theirs.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        state[name] = value
    for i in range(2):
        for end in ("weight", "bias"):
            state[f"blocks.{i}.attn.qkv.{end}"] = torch.cat(
                [state.pop(f"blocks.{i}.attention.{p}_proj.{end}") for p in "qkv"]
            )
    torch.save(state, tmp_path / "w.pth")
    released = read_released(tmp_path / "w.pth", heads=3)
    tower = vit.Config(**{**vars(released.config), "pool": pool}).build().eval()
    released.load_into(tower)
    with torch.no_grad():
        attention = theirs(films(), output_attentions=True).attentions[-1]  # [B,H,T,T]
    want = attention[:, :, 0, 1:] if pool == "cls" else attention[:, :, 1:, 1:].mean(2)
    want = want / want.mean(-1, keepdim=True)
    found = last_attention(tower, films())
    assert found.shape == (2, 3, 4, 4) and float(want.std()) > 0.05
    torch.testing.assert_close(found.flatten(2), want, rtol=1e-3, atol=1e-4)


def test_maps_follow_the_size_of_the_film():
    tower = vit.Config(image_size=32, patch=8, width=24, depth=1, heads=3, channels=3).build().eval()
    maps = last_attention(tower, films(48))
    assert maps.shape == (2, 3, 6, 6)
    torch.testing.assert_close(maps.mean((2, 3)), torch.ones(2, 3))


@pytest.fixture(scope="module")
def tower() -> nn.Module:
    """ResNet-50 with modules in two places, whose maps are well apart from even."""
    torch.manual_seed(0)
    made = build(resnet50.Config, {"base": 8, "acm": {"groups": 4, "at": ["layer1.1", "layer2"]}}).build().eval()
    for module in made.modules():
        if isinstance(module, ACM):
            module.attend.data.mul_(3)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
    return made


def test_every_module_is_there_in_order_and_forward_is_left_as_it_was(tower):
    x = films(64, 1)[:1]
    before = tower(x)
    found = comparisons(tower, x)
    assert [c.place for c in found] == ["layer1.1", "layer2.0", "layer2.1", "layer2.2", "layer2.3"]
    assert [tuple(c.focus.shape) for c in found] == [(16, 16)] + [(8, 8)] * 4
    for c in found:
        torch.testing.assert_close(c.focus.mean(), torch.tensor(1.0))
        torch.testing.assert_close(c.context.mean(), torch.tensor(1.0))
    assert torch.equal(tower(x), before) and not any(m._forward_pre_hooks for m in tower.modules())


def test_a_comparison_is_the_published_modules_weighted_by_effect():
    """Maps, K, Q and gate come from the published layers; the weight of a group is the norm of gate * (K - Q)."""
    torch.manual_seed(0)
    theirs = LiteralACM(8, 2)
    for p in theirs.parameters():
        p.data.add_(0.3 * torch.randn_like(p))
    ours = ACM(8, 2)
    ours.load_state_dict(ours_from_literal(theirs.state_dict()))
    x = films(6, 8)[:1]
    found = comparisons(nn.Sequential(nn.Identity(), nn.ModuleDict({"acm": ours})["acm"]), x)[0]
    with torch.no_grad():
        mean = x.mean((2, 3), keepdim=True)
        K, Q, gate = theirs.add_mod(x - mean), theirs.sub_mod(x - mean), theirs.mul_mod(mean)
        change = (gate * (K - Q)).view(2, 4).norm(dim=1)
        maps = [
            branch.map_gen(x)[0].flatten(1).softmax(1).view(2, 6, 6) * 36 for branch in (theirs.add_mod, theirs.sub_mod)
        ]
    for got, each in zip((found.focus, found.context), maps):
        torch.testing.assert_close(got, (each * (change / change.sum())[:, None, None]).sum(0), rtol=1e-4, atol=1e-5)
    assert found.correlation == pytest.approx(float((K * Q).mean()), rel=1e-4)


def test_a_group_that_compares_nothing_has_no_say():
    torch.manual_seed(0)
    module = ACM(8, 2)
    module.attend.data.mul_(4)
    module.attend.data[1, :4] = module.attend.data[0, :4]  # group 1: both attentions alike
    x = films(6, 8)[:1]
    maps, change, _ = module.looks(x)
    assert change[0, 0] < 1e-6 < change[0, 1]
    found = comparisons(nn.Sequential(module), x)[0]
    torch.testing.assert_close(found.focus, maps[0, 0, 1] * 36, rtol=1e-4, atol=1e-5)


def test_a_film_without_anything_to_compare_gives_even_maps():
    found = comparisons(nn.Sequential(ACM(8, 2)), torch.full((1, 8, 6, 6), 0.5))[0]
    torch.testing.assert_close(found.focus, torch.ones(6, 6))
    torch.testing.assert_close(found.context, torch.ones(6, 6))


def test_a_tower_without_modules_says_so():
    with pytest.raises(NoAttention, match="no ACM"):
        comparisons(build(resnet50.Config, {"base": 8}).build(), films(32, 1)[:1])
