"""The vision transformer against loops from the paper, and against Hugging Face's with the same weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.config import ConfigError, build
from models.vision.vit import Attention, Block, Config, DropPath, PatchEmbed, ViT, attend, sine_positions

SMALL = {"image_size": 32, "patch": 8, "channels": 3, "width": 24, "depth": 3, "heads": 3}


def tower(seed: int = 0, **changes) -> ViT:
    torch.manual_seed(seed)
    made = Config(**{**SMALL, **changes}).build().eval()
    with torch.no_grad():  # a fresh tower has zero biases and unit norms, which would hide a forgotten one
        for p in made.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return made


def images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def test_attention_is_the_formula_of_the_paper():
    torch.manual_seed(0)
    B, T, D, H = 2, 5, 12, 3
    layer = Attention(D, H).double()
    x = torch.randn(B, T, D, dtype=torch.float64)
    W, b = layer.qkv.weight.detach().numpy(), layer.qkv.bias.detach().numpy()
    U, c = layer.proj.weight.detach().numpy(), layer.proj.bias.detach().numpy()
    size = D // H
    want = np.zeros((B, T, D))
    for i in range(B):
        projected = x[i].numpy() @ W.T + b  # [T, 3D]: first all queries, then all keys, then all values
        for h in range(H):
            part = slice(h * size, (h + 1) * size)
            q, k, v = (projected[:, n * D : (n + 1) * D][:, part] for n in range(3))
            for t in range(T):
                scores = np.array([q[t] @ k[s] / math.sqrt(size) for s in range(T)])
                weights = np.exp(scores) / np.exp(scores).sum()
                want[i, t, part] = sum(weights[s] * v[s] for s in range(T))
        want[i] = want[i] @ U.T + c
    np.testing.assert_allclose(layer(x).detach().numpy(), want, rtol=0, atol=1e-12)


def test_a_block_is_pre_norm_with_two_residuals():
    torch.manual_seed(0)
    block = Block(12, 3, 2.0, 0.0).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)

    def norm(layer, value):
        mean = value.mean(-1, keepdim=True)
        variance = ((value - mean) ** 2).mean(-1, keepdim=True)
        return (value - mean) / (variance + 1e-6).sqrt() * layer.weight + layer.bias

    middle = x + block.attn(norm(block.norm1, x))
    hidden = norm(block.norm2, middle) @ block.mlp[0].weight.T + block.mlp[0].bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    want = middle + hidden @ block.mlp[2].weight.T + block.mlp[2].bias
    torch.testing.assert_close(block(x), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("grid", "width"), [(1, 4), (3, 8), (7, 24)])
def test_sine_positions_are_the_formula(grid, width):
    table = sine_positions(grid, width)
    assert table.shape == (grid * grid, width) and table.dtype == torch.float32
    quarter = width // 4
    for row in range(grid):
        for column in range(grid):
            for i in range(quarter):
                rate = 10000 ** (-i / quarter)
                found = [table[row * grid + column, part * quarter + i].item() for part in range(4)]
                want = [
                    math.sin(row * rate),
                    math.cos(row * rate),
                    math.sin(column * rate),
                    math.cos(column * rate),
                ]
                assert found == pytest.approx(want, abs=1e-6)


def test_fixed_positions_are_neither_sent_nor_trained():
    made = tower()
    assert not [n for n in made.state_dict() if "sine" in n]
    assert made.sine is not None and not made.sine.requires_grad


def test_patches_are_read_row_by_row_and_keep_their_place():
    """A change of one patch changes one token before the blocks, the one at its row and column."""
    made = tower(depth=1)
    plain = images(1, 3, 32, 32)
    changed = plain.clone()
    changed[:, :, 8:16, 24:32] += 1  # row 1, column 3 of a grid of 4

    def before_blocks(x):
        kept = {}
        handle = made.blocks[0].register_forward_pre_hook(lambda _, args: kept.update(x=args[0]))
        made.tokens(x)
        handle.remove()
        return kept["x"]

    moved = (before_blocks(plain) != before_blocks(changed)).any(-1)[0]
    assert moved.nonzero().flatten().tolist() == [1 + 1 * 4 + 3]
    with torch.no_grad():
        cls = before_blocks(plain)[0, 0]
    assert torch.equal(cls, made.cls_token[0, 0])  # the class token has no position


def test_the_tower_knows_where_a_patch_is():
    made = tower()
    x = images(1, 3, 32, 32)
    assert not torch.allclose(made(x), made(x.flip(-1)), atol=1e-4)
    with torch.no_grad():
        made.sine.zero_()  # the control: without positions it is blind to the order of patches
    halves = torch.cat([x[..., 16:], x[..., :16]], -1)
    torch.testing.assert_close(made(x), made(halves), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positions", ["fixed", "learned"])
def test_pooling_takes_the_class_token_or_the_mean_of_the_patches(positions):
    x = images(2, 3, 32, 32)
    cls, mean = tower(pool="cls", positions=positions), tower(pool="mean", positions=positions)
    tokens = cls.tokens(x)
    assert tokens.shape == (2, 1 + 16, 24)
    torch.testing.assert_close(cls(x), tokens[:, 0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mean(x), torch.stack([tokens[:, 1 + p] for p in range(16)]).mean(0))


@pytest.mark.parametrize("positions", ["fixed", "learned"])
def test_the_trained_size_uses_the_positions_as_they_are(positions):
    made = tower(positions=positions)
    table = made.positions(4)
    if positions == "learned":
        assert table is made.pos_embed
        resampled = F.interpolate(table.view(1, 4, 4, 24).permute(0, 3, 1, 2), size=(4, 4), mode="bicubic")
        torch.testing.assert_close(resampled.permute(0, 2, 3, 1).reshape(1, 16, 24), table)
    else:
        assert torch.equal(table[0], sine_positions(4, 24))


@pytest.mark.parametrize("positions", ["fixed", "learned"])
@pytest.mark.parametrize("side", [8, 24, 48, 64])
def test_other_sizes_run(positions, side):
    made = tower(positions=positions)
    assert made(images(2, 3, side, side)).shape == (2, 24)
    grid = side // 8
    assert made.positions(grid).shape == (1, grid * grid, 24)
    if positions == "fixed":
        assert torch.equal(made.positions(grid)[0], sine_positions(grid, 24))


def test_learned_positions_of_a_smooth_table_stay_smooth():
    """Resampling a table that grows linearly with the column keeps its middle and its order."""
    made = tower(positions="learned")
    with torch.no_grad():
        made.pos_embed.copy_(torch.arange(4.0).repeat(4)[None, :, None].expand(1, 16, 24))
    row = made.positions(8).detach()[0, :, 0].view(8, 8)
    assert torch.allclose(row, row[:1].expand(8, 8))  # no mixing of rows and columns
    assert torch.all(row[0].diff() > 0) and row[0].mean() == pytest.approx(1.5, abs=1e-5)


@pytest.mark.parametrize(("height", "width"), [(32, 24), (30, 30), (7, 7)])
def test_images_that_do_not_fit_are_refused(height, width):
    with pytest.raises(ValueError, match="multiple of the patch"):
        tower()(images(1, 3, height, width))


def counted(width: int, depth: int, patch: int, channels: int, hidden: int, positions: int) -> int:
    """Parameters by the paper's architecture."""
    patches = channels * patch * patch * width + width
    norm = 2 * width
    block = 2 * norm + (width * 3 * width + 3 * width) + (width * width + width) + (2 * width * hidden + hidden + width)
    return patches + width + positions * width + depth * block + norm


def test_vit_s_16_has_the_published_number_of_parameters():
    """22.05 million with 1000 classes (DeiT-S, arXiv 2012.12877), 21.67 without; our CLS has no position."""
    with torch.device("meta"):  # shapes only
        made, fixed = Config(channels=3, positions="learned").build(), Config(channels=1).build()
    found = sum(p.numel() for p in made.parameters())
    published = counted(384, 12, 16, 3, 1536, positions=197)
    assert published + 384 * 1000 + 1000 == 22_050_664
    assert found == published - 384
    assert sum(p.numel() for p in fixed.parameters()) == counted(384, 12, 16, 1, 1536, positions=0)


@pytest.mark.parametrize("side", [32, 48])
def test_it_is_the_transformer_of_hugging_face(side):
    transformers = pytest.importorskip("transformers")
    ours = tower(positions="learned", pool="cls")
    theirs = transformers.ViTModel(
        transformers.ViTConfig(
            hidden_size=24,
            num_hidden_layers=3,
            num_attention_heads=3,
            intermediate_size=96,
            image_size=32,
            patch_size=8,
            num_channels=3,
            layer_norm_eps=1e-6,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        add_pooling_layer=False,
    ).eval()
    theirs.load_state_dict(_as_hugging_face(ours, theirs.state_dict().keys()))
    x = images(2, 3, side, side)
    with torch.no_grad():
        want = theirs(x, interpolate_pos_encoding=side != 32).last_hidden_state
        torch.testing.assert_close(ours.tokens(x), want, rtol=1e-4, atol=1e-5)


def _as_hugging_face(made: ViT, names) -> dict[str, torch.Tensor]:
    """Our weights under their names; both 4.x's and 5.x's, of which the model's own are kept."""
    state = made.state_dict()
    out = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.position_embeddings": torch.cat([torch.zeros(1, 1, 24), state["pos_embed"]], 1),
        "embeddings.patch_embeddings.projection.weight": state["patch_embed.weight"],
        "embeddings.patch_embeddings.projection.bias": state["patch_embed.bias"],
        "layernorm.weight": state["norm.weight"],
        "layernorm.bias": state["norm.bias"],
    }
    for i in range(len(made.blocks)):
        for kind in ("weight", "bias"):
            q, k, v = state[f"blocks.{i}.attn.qkv.{kind}"].chunk(3)
            parts = {"query": q, "key": k, "value": v, "q_proj": q, "k_proj": k, "v_proj": v}
            others = {
                "attention.output.dense": "attn.proj",
                "attention.o_proj": "attn.proj",
                "layernorm_before": "norm1",
                "layernorm_after": "norm2",
                "intermediate.dense": "mlp.0",
                "output.dense": "mlp.2",
                "mlp.fc1": "mlp.0",
                "mlp.fc2": "mlp.2",
            }
            for prefix in (f"encoder.layer.{i}", f"layers.{i}"):
                for name, value in parts.items():
                    out[f"{prefix}.attention.attention.{name}.{kind}"] = value
                    out[f"{prefix}.attention.{name}.{kind}"] = value
                for name, own in others.items():
                    out[f"{prefix}.{name}.{kind}"] = state[f"blocks.{i}.{own}.{kind}"]
    return {name: out[name] for name in names}


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    layer, x = DropPath(0.3), torch.ones(20_000, 2, 3)
    out = layer(x)
    per_sample = out.flatten(1)
    assert torch.all((per_sample == per_sample[:, :1]).all(1))
    kept = out[:, 0, 0]
    assert kept.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert (kept > 0).float().mean() == pytest.approx(0.7, abs=5 * math.sqrt(0.21 / 20_000))
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(DropPath(0.0)(x), x)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("tokens", [5, 130])
def test_attention_of_one_token_and_of_long_sequences_is_the_same_formula(tokens, first):
    """Both forms of ``attend``, in values and gradients; at 130 tokens the fused kernel is taken."""
    torch.manual_seed(0)
    block = Block(12, 3, 2.0, 0.0).double()
    x = torch.randn(2, tokens, 12, dtype=torch.float64, requires_grad=True)
    q, k, v = (block.attn.qkv(block.norm1(x)).view(2, tokens, 3, 3, 4)[:, :, i] for i in range(3))
    weights = torch.softmax(torch.einsum("bthd,bshd->bhts", q, k) / 2, -1)
    middle = x + block.attn.proj(torch.einsum("bhts,bshd->bthd", weights, v).reshape(2, tokens, 12))
    want = (middle + block.mlp(block.norm2(middle)))[:, : 1 if first else tokens]
    found = block(x, first=first)
    torch.testing.assert_close(found, want, rtol=0, atol=1e-12)
    pull = torch.randn_like(want)
    wanted = torch.autograd.grad((want * pull).sum(), [x, *block.parameters()])
    for one, other in zip(torch.autograd.grad((found * pull).sum(), [x, *block.parameters()]), wanted):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("tokens", [5, 130])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_takes_either_form_within_its_rounding(tokens, dtype):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, tokens, 8, dtype=torch.float64) for _ in range(3))
    want = F.scaled_dot_product_attention(q, k, v)
    with torch.no_grad():
        torch.testing.assert_close(attend(*(t.to(dtype) for t in (q, k, v))).double(), want, rtol=0, atol=0.03)
    found = attend(*(t.to(dtype).requires_grad_() for t in (q, k, v)))
    torch.testing.assert_close(found.double(), want, rtol=0, atol=0.03)


def test_a_dropped_branch_is_not_computed_and_the_result_is_as_if_it_were():
    layer, seen = DropPath(0.5), []
    layer.train()
    x = torch.randn(64, 4, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)

    def branch(part):
        seen.append(len(part))
        return part @ weight

    torch.manual_seed(9)
    found = layer.residual(x, branch)
    torch.manual_seed(9)
    want = x + layer(x @ weight)
    assert 0 < seen[0] < 64
    torch.testing.assert_close(found, want, rtol=0, atol=1e-12)
    pull = torch.randn_like(want)
    for one, other in zip(*(torch.autograd.grad((y * pull).sum(), [x, weight]) for y in (found, want))):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)
    layer.rate = 1 - 1e-9  # all dropped: nothing to compute
    assert torch.equal(layer.residual(x, branch), x) and len(seen) == 1


def test_drop_path_grows_with_depth():
    rates = [b.drop_path.rate for b in Config(**{**SMALL, "depth": 5, "drop_path": 0.2}).build().blocks]
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])
    assert [b.drop_path.rate for b in Config(**{**SMALL, "depth": 1, "drop_path": 0.2}).build().blocks] == [0.0]


@pytest.mark.parametrize(("patch", "widths"), [(2, [12]), (4, [8, 12]), (8, [8, 8, 12]), (16, [8, 8, 8, 12])])
def test_the_convolutional_stem_is_the_papers(patch, widths):
    """Xiao et al., section 4: 3x3 convolutions of stride 2 that double the channels, then one of 1x1. Narrow
    stages are held at 8 channels, and each stage is normalised over the whole film."""
    made = tower(stem="conv", patch=patch).double()
    x = images(2, 3, 32, 32).double()
    want, layers = x, list(made.patch_embed)
    for number, width in enumerate(widths):
        convolution, norm = layers[3 * number], layers[3 * number + 1]
        assert convolution.weight.shape[::2] == (width, 3) and convolution.bias is None
        want = F.conv2d(want, convolution.weight, stride=2, padding=1)
        mean, variance = want.mean((1, 2, 3), keepdim=True), want.var((1, 2, 3), keepdim=True, unbiased=False)
        want = (want - mean) / (variance + norm.eps).sqrt()
        want = (want * norm.weight[:, None, None] + norm.bias[:, None, None]).relu()
    want = torch.einsum("bchw,dc->bdhw", want, layers[-1].weight[..., 0, 0]) + layers[-1].bias[:, None, None]
    assert len(layers) == 3 * len(widths) + 1 and want.shape == (2, 24, 32 // patch, 32 // patch)
    torch.testing.assert_close(made.patch_embed(x), want, rtol=1e-10, atol=1e-10)
    assert made(x).shape == (2, 24) and made.tokens(x).shape == (2, 1 + (32 // patch) ** 2, 24)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_size": 30}, "image_size 30 and patch 8.*24 and 32"),
        ({"heads": 5}, "width 24 and heads 5"),
        ({"width": 18, "heads": 3}, "width 18 and positions 'fixed'"),
        ({"drop_path": 1.0}, "drop_path 1.0"),
        ({"drop_path": -0.1}, "drop_path -0.1"),
        ({"patch": 0}, "patch 0: must be positive"),
        ({"heads": 0}, "heads 0: must be positive"),
        ({"depth": -1}, "depth -1: must be positive"),
        ({"channels": 0}, "channels 0: must be positive"),
        ({"stem": "conv", "patch": 14, "image_size": 28}, "stem 'conv' and patch 14"),
        ({"stem": "conv", "patch": 1}, "stem 'conv' and patch 1"),
    ],
)
def test_contradictions_name_their_keys(changes, said):
    with pytest.raises(ConfigError, match=said):
        build(Config, {**SMALL, **changes})


@pytest.mark.parametrize(("channels", "patch", "side"), [(1, 16, 64), (3, 8, 40), (2, 4, 4)])
def test_the_patch_embedding_is_the_convolution_it_stands_for(channels, patch, side):
    made = PatchEmbed(channels, 6, patch).double()
    images = torch.randn(3, channels, side, side, dtype=torch.float64).transpose(2, 3).requires_grad_()
    want = F.conv2d(images, made.weight, made.bias, stride=patch).flatten(2).transpose(1, 2)
    pull = torch.randn_like(want)
    inputs = (images, made.weight, made.bias)
    torch.testing.assert_close(made(images), want, rtol=0, atol=1e-12)
    for found, expected in zip(
        torch.autograd.grad((made(images) * pull).sum(), inputs), torch.autograd.grad((want * pull).sum(), inputs)
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
