"""ResNet-50 against its published size and against Hugging Face's with the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.config import ConfigError, build
from models.vision.resnet50 import Bottleneck, Config, ResNet50

PUBLISHED = 25_557_032 - (2048 * 1000 + 1000)  # the classifier's own count of parameters, less its 1000-class layer


@pytest.fixture(scope="module")
def lively() -> ResNet50:
    """A tower whose norms are not the identity and whose last norms are not zero, in float64."""
    torch.manual_seed(0)
    made = Config(channels=3, image_size=64).build().double().eval()
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.0)
                module.bias.uniform_(-0.2, 0.2)
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 2.0)
    return made


def outline(**changes) -> ResNet50:
    """A tower without memory or numbers: names and shapes only."""
    with torch.device("meta"):
        return Config(**changes).build()


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_it_has_the_published_number_of_parameters(norm):
    assert PUBLISHED == 23_508_032
    made = outline(channels=3, norm=norm)
    assert sum(p.numel() for p in made.parameters()) == PUBLISHED
    grey = outline(norm=norm)
    assert PUBLISHED - sum(p.numel() for p in grey.parameters()) == 2 * 64 * 7 * 7


def test_its_tensors_have_the_names_and_shapes_of_released_weights():
    made = outline(channels=3).state_dict()
    assert len(made) == 320 - 2  # of the classifier's 320 tensors all but fc.weight and fc.bias
    assert made["conv1.weight"].shape == (64, 3, 7, 7)
    assert made["layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1)
    assert made["layer2.0.conv2.weight"].shape == (128, 128, 3, 3)
    assert made["layer4.2.bn3.running_var"].shape == (2048,)
    assert [sum(f"layer{s}.{i}.conv1.weight" in made for i in range(9)) for s in (1, 2, 3, 4)] == [3, 4, 6, 3]


@pytest.mark.parametrize("side", [32, 64, 96])
def test_each_stage_halves_the_side_as_in_the_paper(lively, side):
    shapes, handles = {}, []
    for name in ("layer1", "layer2", "layer3", "layer4"):
        stage = getattr(lively, name)
        handles.append(
            stage.register_forward_hook(lambda _, __, out, name=name: shapes.update({name: tuple(out.shape)}))
        )
    x = torch.rand(2, 3, side, side, dtype=torch.float64)
    with torch.no_grad():
        out = lively(x)
    for handle in handles:
        handle.remove()
    sides = [side // 4, side // 8, side // 16, side // 32]
    assert [shapes[f"layer{i + 1}"] for i in range(4)] == [
        (2, width, s, s) for width, s in zip((256, 512, 1024, 2048), sides)
    ]
    assert out.shape == (2, lively.width) == (2, 2048)


def test_it_is_the_network_of_hugging_face(lively):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.ResNetModel(
        transformers.ResNetConfig(
            num_channels=3,
            embedding_size=64,
            hidden_sizes=[256, 512, 1024, 2048],
            depths=[3, 4, 6, 3],
            layer_type="bottleneck",
            downsample_in_bottleneck=False,  # the stride is in the 3x3 convolution
        )
    )
    state, renamed = lively.state_dict(), {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] in ("conv1", "bn1"):
            new = f"embedder.embedder.{'convolution' if parts[0] == 'conv1' else 'normalization'}.{parts[1]}"
        else:
            block = f"encoder.stages.{int(parts[0][-1]) - 1}.layers.{parts[1]}"
            if parts[2] == "downsample":
                new = f"{block}.shortcut.{'convolution' if parts[3] == '0' else 'normalization'}.{parts[4]}"
            else:
                kind = "convolution" if parts[2].startswith("conv") else "normalization"
                new = f"{block}.layer.{int(parts[2][-1]) - 1}.{kind}.{parts[3]}"
        renamed[new] = value
    theirs.double().eval().load_state_dict(renamed)
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want = theirs(x)
        torch.testing.assert_close(lively.grid(x), want.last_hidden_state, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(lively(x), want.pooler_output.flatten(1), rtol=1e-9, atol=1e-9)


def test_a_fresh_block_passes_its_input_on():
    torch.manual_seed(0)
    x = torch.rand(2, 256, 5, 5)
    assert torch.equal(Bottleneck(256, 64, 1, "batch").eval()(x), F.relu(x))
    first, narrow = Bottleneck(64, 64, 1, "batch").eval(), torch.rand(2, 64, 5, 5)
    torch.testing.assert_close(first(narrow), F.relu(first.downsample(narrow)))


def test_group_norm_keeps_no_statistics_and_sees_each_image_alone():
    assert not list(outline(norm="group").buffers())
    torch.manual_seed(0)
    x = torch.rand(3, 64, 8, 8)

    def together_and_alone(norm: str) -> tuple[torch.Tensor, torch.Tensor]:
        block = Bottleneck(64, 64, 2, norm).train()
        nn.init.ones_(block.bn3.weight)
        with torch.no_grad():
            return block(x), torch.cat([block(x[i : i + 1]) for i in range(3)])

    torch.testing.assert_close(*together_and_alone("group"), rtol=1e-4, atol=1e-5)
    together, alone = together_and_alone("batch")  # the control: batch norm mixes images
    assert not torch.allclose(together, alone, atol=1e-2)


@pytest.mark.parametrize("base", [8, 16, 40, 64, 72])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_narrower_network_is_the_same_one(base, norm):
    """By the paper's table: 3, 4, 6, 3 blocks of 1x1, 3x3, 1x1, a projection in the first of each."""
    count, inside = 7 * 7 * base + 2 * base, base
    for stage, blocks in enumerate((3, 4, 6, 3)):
        planes = base * 2**stage
        for block in range(blocks):
            count += inside * planes + 9 * planes**2 + 4 * planes**2 + 2 * (planes + planes + 4 * planes)
            count += (inside * 4 * planes + 2 * 4 * planes) if block == 0 else 0
            inside = 4 * planes
    made = outline(base=base, norm=norm)
    assert sum(p.numel() for p in made.parameters()) == count
    assert made.width == inside == 32 * base
    groups = [m for m in made.modules() if isinstance(m, nn.GroupNorm)]
    assert len(groups) == (53 if norm == "group" else 0)
    assert all(m.num_channels >= 2 * m.num_groups for m in groups)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"image_size": 31}, "image_size 31"), ({"channels": 0}, "channels 0"), ({"base": 12}, "base 12")],
)
def test_a_size_that_cannot_be_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        build(Config, changes)
