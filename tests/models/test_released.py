"""Released weights give the features of the network they were released with; a file that does not fit says how.

The twins are small networks of Hugging Face (DINO, DINOv2) and of the published ACM layers, saved under the names and in
the wrappings of the authors' files.
"""

from __future__ import annotations

import argparse
import collections
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.config import build
from models.released import ReleasedError, read_released, resampled
from models.vision import resnet50, vit
from tests.reference.acm import LiteralACM

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
RENAMED = (
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.", ""),
    ("encoder.layer.", "blocks."),
    ("layers.", "blocks."),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("attention.o_proj", "attn.proj"),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("layernorm.", "norm."),
)


def films(side: int = 32, channels: int = 3) -> Tensor:
    return torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(1))


def lively(module: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(0.3 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return module.eval()


def twin(kind: str, seed: int = 0) -> tuple[nn.Module, dict[str, Tensor]]:
    """A small ViT of Hugging Face, and its tensors under the names of the authors' files."""
    transformers = pytest.importorskip("transformers")
    sizes = {
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "image_size": 32,
        "patch_size": 8,
        "hidden_dropout_prob": 0.0,
        "layer_norm_eps": 1e-6,
    }
    if kind == "dino":
        theirs = transformers.ViTModel(transformers.ViTConfig(**sizes, intermediate_size=48), add_pooling_layer=False)
    else:
        theirs = transformers.Dinov2Model(transformers.Dinov2Config(**sizes, mlp_ratio=2))
    lively(theirs, seed)
    state: dict[str, Tensor] = {}
    for name, value in theirs.state_dict().items():
        for old, new in RENAMED:
            name = name.replace(old, new)
        state[name] = value
    for i in range(3):
        for end in ("weight", "bias"):
            parts = [state.pop(f"blocks.{i}.attention.{p}_proj.{end}") for p in "qkv"]
            state[f"blocks.{i}.attn.qkv.{end}"] = torch.cat(parts)
    return theirs, state


@torch.no_grad()
def features(theirs: nn.Module, images: Tensor) -> Tensor:
    return theirs(images).last_hidden_state[:, 0]


@pytest.mark.parametrize("kind", ["dino", "dinov2"])
@pytest.mark.parametrize("normalise", ["none", "imagenet"])
def test_a_vit_gives_the_features_it_was_released_with(tmp_path, kind, normalise):
    theirs, state = twin(kind)
    torch.save(state, tmp_path / "weights.pth")
    released = read_released(tmp_path / "weights.pth", normalise=normalise, heads=3)
    cfg = released.config
    assert (cfg.width, cfg.depth, cfg.patch, cfg.image_size, cfg.mlp_ratio) == (24, 3, 8, 32, 2.0)
    seen = films() if normalise == "none" else (films() - MEAN) / STD
    with torch.no_grad():
        found = released.build().eval()(films())
    torch.testing.assert_close(found, features(theirs, seen), rtol=1e-4, atol=1e-5)
    if normalise == "imagenet":  # the control: forgotten, it shows
        assert (found - features(theirs, films())).abs().max() > 1e-2
    assert (("mask_token" in released.heads) and kind == "dinov2") or kind == "dino"


def test_a_vit_of_standard_size_needs_no_count_of_heads(tmp_path):
    with torch.device("meta"):
        ours = vit.Config(channels=3, patch=8, positions="learned").build()
    names = {"patch_embed.": "patch_embed.proj.", "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}
    state = {}
    for name, value in ours.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        state[name] = torch.zeros(value.shape)
    state["pos_embed"] = torch.zeros(1, 785, 384)  # ViT-S/8 at 224 px, as DINO and DISTL released it
    torch.save({"state_dict": {f"module.backbone.{n}": v for n, v in state.items()}}, tmp_path / "s8.pth")
    assert read_released(tmp_path / "s8.pth").config == vit.Config(channels=3, patch=8, positions="learned")


PREFIXES = ["module.", "backbone.", "module.backbone.", "dino.", "cnn.", "module.dino.backbone."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_are_stripped_and_heads_set_apart(tmp_path, prefix):
    """As in DISTL's file: a dict with ``state_dict``, and heads beside the backbone."""
    theirs, state = twin("dino")
    outer = prefix.removesuffix("backbone.")
    heads = {f"{outer}head.mlp.0.weight": torch.ones(5, 24), f"{outer}head.last_layer.weight_g": torch.ones(7, 1)}
    torch.save({"state_dict": {prefix + n: v for n, v in state.items()} | heads}, tmp_path / "w.pth")
    released = read_released(tmp_path / "w.pth", heads=3)
    with torch.no_grad():
        torch.testing.assert_close(released.build().eval()(films()), features(theirs, films()), rtol=1e-4, atol=1e-5)
    assert sorted(released.heads) == ["head.last_layer.weight_g", "head.mlp.0.weight"]


def training_checkpoint(path) -> tuple[nn.Module, nn.Module]:
    """As DINO and DISTL write one a round: two networks, options, optimiser and centre."""
    (student, of_student), (teacher, of_teacher) = twin("dino", 1), twin("dino", 2)
    torch.save(
        {
            "student": {f"module.backbone.{n}": v for n, v in of_student.items()},
            "teacher": {f"backbone.{n}": v for n, v in of_teacher.items()},
            "optimizer": torch.optim.AdamW(student.parameters()).state_dict(),
            "epoch": 3,
            "args": argparse.Namespace(arch="vit_small", lr=0.1),
            "dino_loss": {"center": torch.zeros(1, 9)},
            "fp16_scaler": None,
        },
        path,
    )
    return student, teacher


def test_a_training_checkpoint_gives_the_network_asked_for(tmp_path):
    student, teacher = training_checkpoint(tmp_path / "round.pth")
    for part, theirs in (("student", student), ("teacher", teacher)):
        ours = read_released(tmp_path / "round.pth", part=part, heads=3).build().eval()
        with torch.no_grad():
            torch.testing.assert_close(ours(films()), features(theirs, films()), rtol=1e-4, atol=1e-5)
    for part in ("", "techer"):
        with pytest.raises(ReleasedError, match="holds student, teacher; give one of them as part"):
            read_released(tmp_path / "round.pth", part=part, heads=3)


def test_networks_side_by_side_in_one_dict_are_told_apart_by_their_prefix(tmp_path):
    _, state = twin("dino", 1)
    theirs, other = twin("dino", 2)
    both = {f"student.{n}": v for n, v in state.items()} | {f"teacher.backbone.{n}": v for n, v in other.items()}
    save_file(both, tmp_path / "both.safetensors")
    ours = read_released(tmp_path / "both.safetensors", part="teacher", heads=3).build().eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(films()), features(theirs, films()), rtol=1e-4, atol=1e-5)
    with pytest.raises(ReleasedError, match=r"holds 2 networks, 'student.', 'teacher.backbone.'"):
        read_released(tmp_path / "both.safetensors")
    with pytest.raises(ReleasedError, match="part 'ema': nothing of that name"):
        read_released(tmp_path / "both.safetensors", part="ema")


def test_nested_chunks_of_blocks_are_unfolded(tmp_path):
    theirs, state = twin("dinov2")
    chunked = {
        n.replace("blocks.", f"blocks.{int(n.split('.')[1]) // 2}.") if n.startswith("blocks.") else n: v
        for n, v in state.items()
    }
    assert "blocks.1.2.ls1.gamma" in chunked
    torch.save({"teacher": {f"backbone.{n}": v for n, v in chunked.items()}}, tmp_path / "w.pth")
    ours = read_released(tmp_path / "w.pth", heads=3).build().eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(films()), features(theirs, films()), rtol=1e-4, atol=1e-5)


def test_a_tower_of_the_run_takes_them_in_grey_and_at_another_size(tmp_path):
    theirs, state = twin("dino")
    torch.save(state, tmp_path / "w.pth")
    released = read_released(tmp_path / "w.pth", normalise="imagenet", heads=3)
    values = {"image_size": 48, "patch": 8, "channels": 1, "width": 24, "depth": 3, "heads": 3, "mlp_ratio": 2.0}
    tower = vit.Config(**values, positions="learned", drop_path=0.1).build().eval()
    released.load_into(tower)
    same_size = vit.Config(**{**values, "image_size": 32}, positions="learned").build().eval()
    released.load_into(same_size)
    grey = films(32, channels=1)
    with torch.no_grad():
        want = features(theirs, (grey.expand(-1, 3, -1, -1) - MEAN) / STD)
        torch.testing.assert_close(same_size(grey), want, rtol=1e-4, atol=1e-5)
        larger = films(48, channels=1)  # a tower resamples its own table to a film's grid; so does the reader
        torch.testing.assert_close(tower(larger), same_size(larger), rtol=1e-5, atol=1e-6)


def test_resampling_keeps_what_fits_and_stays_smooth():
    table = torch.arange(4.0).repeat(4)[None, :, None].expand(1, 16, 3)
    assert resampled(table, 4) is table
    grown = resampled(table, 8)[0, :, 0].view(8, 8)
    torch.testing.assert_close(grown, grown[:1].expand(8, 8))  # rows and columns are not mixed up
    assert torch.all(grown[0].diff() > 0) and float(grown.mean()) == pytest.approx(1.5, abs=1e-5)
    ours = vit.Config(image_size=32, patch=8, width=12, depth=1, heads=1, positions="learned").build()
    with torch.no_grad():
        torch.testing.assert_close(resampled(ours.pos_embed, 6), ours.positions(6))


# -- ResNet-50 -----------------------------------------------------------------------------------------------------


class Published(nn.Module):
    """A bottleneck's ACM slot with the published layers."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.layers = LiteralACM(channels, groups)

    def forward(self, x: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
        y, d = self.layers(norm(x))
        return y, d.flatten()


def acm_twin(at: list[str], base: int = 8, groups: int = 4) -> tuple[nn.Module, dict[str, Tensor]]:
    """A narrow ResNet-50 with published ACM layers in the blocks ``at``, and its tensors under the authors' names."""
    torch.manual_seed(0)
    theirs = build(resnet50.Config, {"base": base, "channels": 3, "acm": {"groups": groups, "at": at}}).build()
    for block in theirs.modules():
        if isinstance(block, resnet50.Bottleneck) and block.acm is not None:
            block.acm = Published(block.bn3.num_features, groups)
    lively(theirs)
    return theirs, {name.replace(".acm.layers.", ".module."): value for name, value in theirs.state_dict().items()}


def authors_checkpoint(path, state: dict[str, Tensor]) -> None:
    head = {"classifier_conv.weight": torch.ones(14, 256, 1, 1), "classifier_conv.bias": torch.zeros(14)}
    torch.save(
        {
            "state_dict": collections.OrderedDict((f"module.{n}", v) for n, v in (state | head).items()),
            "best_loss": np.float64(0.85),
            "epoch": 30,
            "rng_state": torch.get_rng_state(),
            "LR": 0.04,
        },
        path,
    )


@pytest.mark.parametrize(
    "at", [["layer1", "layer2", "layer3", "layer4"], ["layer2", "layer3", "layer4"], ["layer1.2", "layer4"], []]
)
def test_an_acm_resnet_gives_the_features_it_was_released_with(tmp_path, at):
    theirs, state = acm_twin(at) if at else acm_twin(["layer1.0"])
    if not at:
        theirs.layer1[0].acm = None
        state = {n: v for n, v in state.items() if ".module." not in n}
    authors_checkpoint(tmp_path / "checkpoint", state)
    released = read_released(tmp_path / "checkpoint", normalise="imagenet")
    assert sorted(released.heads) == ["classifier_conv.bias", "classifier_conv.weight"]
    acm = released.config.acm
    assert (list(acm.at), acm.groups) == (at, 4) if at else acm is None
    ours = released.build().eval()
    with torch.no_grad():
        found, correlations = ours._compared(films(64))
        want, published = theirs._compared((films(64) - MEAN) / STD)
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4)
    assert len(correlations) == len(published)
    for a, b in zip(correlations, published):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_the_inert_bias_is_taken_in_and_dropped(tmp_path):
    _, state = acm_twin(["layer2"])
    authors_checkpoint(tmp_path / "a", state)
    moved = {n: v + 7 if n.endswith("map_gen.0.bias") else v for n, v in state.items()}
    authors_checkpoint(tmp_path / "b", moved)
    a, b = (read_released(tmp_path / name).tower for name in "ab")
    assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)
    assert not [n for n in a if "map_gen" in n]


def test_a_plain_file_of_torchvision_names_loads(tmp_path):
    """With ``fc`` and without counters, as the oldest released files are."""
    theirs = lively(build(resnet50.Config, {"base": 8, "channels": 3}).build())
    state = {n: v for n, v in theirs.state_dict().items() if "num_batches" not in n}
    torch.save(state | {"fc.weight": torch.zeros(1000, 256), "fc.bias": torch.zeros(1000)}, tmp_path / "r.pth")
    released = read_released(tmp_path / "r.pth")
    grey = build(resnet50.Config, {"base": 8}).build().eval()
    released.load_into(grey)
    with torch.no_grad():
        torch.testing.assert_close(released.build().eval()(films(64)), theirs(films(64)), rtol=1e-5, atol=1e-5)
        film = films(64, 1)
        torch.testing.assert_close(grey(film), theirs(film.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


# -- what does not fit -----------------------------------------------------------------------------------------------


def test_missing_and_unexpected_tensors_are_named(tmp_path):
    _, state = twin("dino")
    del state["blocks.1.norm2.bias"], state["norm.weight"]
    state["blocks.1.norm3.bias"] = torch.zeros(24)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(
        ReleasedError, match=r"missing blocks.1.norm2.bias, norm.weight; unexpected blocks.1.norm3.bias"
    ):
        read_released(tmp_path / "w.pth", heads=3)
    _, state = acm_twin(["layer4.2"])
    del state["layer3.1.conv2.weight"], state["layer4.2.module.sub_mod.map_gen.0.bias"]
    torch.save(state, tmp_path / "r.pth")
    with pytest.raises(ReleasedError, match=r"an ACM: missing layer4.2.module.sub_mod.map_gen.0.bias; unexpected none"):
        read_released(tmp_path / "r.pth")
    state["layer4.2.module.sub_mod.map_gen.0.bias"] = torch.zeros(4)
    torch.save(state, tmp_path / "r.pth")
    with pytest.raises(ReleasedError, match=r"a ResNet-50: missing layer3.1.conv2.weight; unexpected none"):
        read_released(tmp_path / "r.pth")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 48}, "cls_token: the file has .*24.*, the tower .*48"),
        ({"depth": 2}, "missing none; unexpected blocks.2"),
        ({"positions": "fixed"}, "missing none; unexpected pos_embed"),
        ({"heads": 2}, "3 heads, the tower is configured with 2"),
        ({"stem": "conv"}, "missing patch_embed.0.weight"),
    ],
)
def test_a_tower_that_does_not_fit_is_left_alone(tmp_path, changes, said):
    _, state = twin("dino")
    torch.save(state, tmp_path / "w.pth")
    released = read_released(tmp_path / "w.pth", heads=3)
    values = {"image_size": 32, "patch": 8, "channels": 3, "width": 24, "depth": 3, "heads": 3, "mlp_ratio": 2.0}
    tower = vit.Config(**{"positions": "learned", **values, **changes}).build()
    before = {n: v.clone() for n, v in tower.state_dict().items()}
    with pytest.raises(ReleasedError, match=said):
        released.load_into(tower)
    assert all(torch.equal(v, before[n]) for n, v in tower.state_dict().items())


def test_towers_of_another_kind_or_input_are_refused(tmp_path):
    _, state = acm_twin(["layer4"])
    torch.save(state, tmp_path / "r.pth")
    released = read_released(tmp_path / "r.pth", normalise="imagenet")
    with pytest.raises(ReleasedError, match="holds a resnet50, the tower is a vit"):
        released.load_into(vit.Config(image_size=32, patch=8, width=24, depth=1, heads=3).build())
    with pytest.raises(ReleasedError, match="normalise 'imagenet', the tower is configured with 'none'"):
        released.load_into(build(resnet50.Config, {"base": 8}).build())
    plain = build(resnet50.Config, {"base": 8, "channels": 3, "normalise": "imagenet"}).build()
    with pytest.raises(ReleasedError, match=r"unexpected layer4.0.acm.attend"):
        released.load_into(plain)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("register_tokens", torch.zeros(1, 4, 24), "register tokens"),
        ("blocks.0.mlp.w12.weight", torch.zeros(96, 24), "SwiGLU"),
        ("pos_embed", torch.zeros(1, 16, 24), "16 rows are no class token and square grid"),
    ],
)
def test_variants_that_our_tower_is_not_are_refused(tmp_path, name, value, said):
    _, state = twin("dino")
    torch.save(state | {name: value}, tmp_path / "w.pth")
    with pytest.raises(ReleasedError, match=said):
        read_released(tmp_path / "w.pth", heads=3)


def test_heads_that_cannot_be_told_must_be_given(tmp_path):
    _, state = twin("dino")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ReleasedError, match=r"width 24 is no multiple of 64.*give heads"):
        read_released(tmp_path / "w.pth")


class Evil:
    """Would create a file when unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_file_that_wants_to_run_something_is_refused_and_runs_nothing(tmp_path):
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}, "extra": Evil(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(ReleasedError, match=r"asks for .*open, which is more than weights; refused"):
        read_released(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_files_that_are_no_weights_are_refused(tmp_path):
    (tmp_path / "noise.pth").write_bytes(b"\x00" * 100)
    (tmp_path / "short.safetensors").write_bytes(b"\x08\x00")
    torch.save({"something": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    for name, said in (
        ("noise.pth", "no file of weights"),
        ("short.safetensors", "not a whole safetensors file"),
        ("other.pth", "no ViT .* and no ResNet-50"),
        ("list.pth", "holds a list"),
        ("absent.pth", "no such file"),
    ):
        with pytest.raises(ReleasedError, match=said):
            read_released(tmp_path / name)


def test_published_initial_spread_is_kept():
    """A twin that was all zeros would make every test above pass."""
    _, state = twin("dinov2")
    assert all(float(v.std()) > 0.01 for v in state.values() if v.numel() > 1)
    assert math.isfinite(sum(float(v.sum()) for v in state.values()))
