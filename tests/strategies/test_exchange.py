"""Which tensors of which component travel."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.config import ConfigError, build
from models.vision.resnet50 import Config as ResNet
from strategies.exchange import Exchange

TRAINS = ("vision", "head.diagnosis")
STATE = {
    name: torch.zeros(1)
    for name in (
        "vision/conv1.weight",
        "vision/bn1.weight",
        "vision/bn1.running_mean",
        "head.diagnosis/1.weight",
    )
}


def test_by_default_everything_trained_travels():
    assert Exchange().travelling(TRAINS) == TRAINS
    assert Exchange().select(STATE) == STATE


def test_a_part_may_travel():
    assert Exchange(components=("head.diagnosis",)).travelling(TRAINS) == ("head.diagnosis",)


@pytest.mark.parametrize("components", [("visoin",), ("vision", "text"), ()])
def test_what_is_not_trained_cannot_travel_nor_can_nothing(components):
    with pytest.raises(ConfigError, match=r"exchange\.components.*vision, head\.diagnosis"):
        Exchange(components=components).travelling(TRAINS)


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        ((), list(STATE)),
        (("*running*",), ["vision/conv1.weight", "vision/bn1.weight", "head.diagnosis/1.weight"]),
        (("vision/bn?.*",), ["vision/conv1.weight", "head.diagnosis/1.weight"]),
        (("vision/*",), ["head.diagnosis/1.weight"]),
        (("head.diagnosis/1.weight", "vision/bn1.*"), ["vision/conv1.weight"]),
        (("vision/[ab]*",), ["vision/conv1.weight", "head.diagnosis/1.weight"]),
    ],
)
def test_what_is_kept_does_not_travel(keep, left):
    selected = Exchange(keep=keep).select(STATE)
    assert list(selected) == left and all(selected[n] is STATE[n] for n in left)


@pytest.mark.parametrize("keep", [("vision/batchnorm*",), ("VISION/*",), ("vision/*", "nothing")])
def test_a_pattern_that_matches_nothing_is_a_spelling_mistake(keep):
    with pytest.raises(
        ConfigError, match=rf"exchange\.keep '{keep[-1][0]}.*matches no tensor; names look like 'vision/"
    ):
        Exchange(keep=keep).select(STATE)


def test_keeping_everything_is_no_federation():
    with pytest.raises(ConfigError, match="nothing would travel"):
        Exchange(keep=("*",)).select(STATE)


def test_the_patterns_of_the_docstring_keep_every_batch_norm_and_nothing_else():
    with torch.device("meta"):
        tower = ResNet().build()
    state = {f"vision/{n}": t for n, t in tower.state_dict().items() if t.is_floating_point()}
    norms = {
        f"vision/{name}.{tensor}"
        for name, module in tower.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for tensor in ("weight", "bias", "running_mean", "running_var")
    }
    selected = Exchange(keep=("vision/*bn*", "vision/*downsample.1.*")).select(state)
    assert state.keys() - selected.keys() == norms and len(norms) == 4 * 53


def test_the_wire_knows_three_dtypes():
    assert build(Exchange, {"dtype": "bfloat16"}).dtype == "bfloat16"
    with pytest.raises(ConfigError, match="dtype"):
        build(Exchange, {"dtype": "float64"})
