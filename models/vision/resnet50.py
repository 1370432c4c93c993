"""ResNet-50 (He et al., arXiv 1512.03385) with the stride in the 3x3 convolution and torchvision's parameter names,
so that released weights that use those names load as they are. With ``acm``, blocks compare regions of the film
(models/vision/acm.py):

    vision: {name: resnet50, acm: {at: [layer2, layer3, layer4]}}
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ConfigError, config
from models.vision.acm import ACM, ACMConfig, orthogonality

STAGES = {"layer1": 3, "layer2": 4, "layer3": 6, "layer4": 3}
"""Blocks of each stage."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@config
class Config:
    """``norm``: ``batch`` is the original; ``group`` (32 groups) keeps no running statistics, which hospitals with
    different scanners otherwise average into a mixture that fits none of them (Hsieh et al. 2020).

    ``base``: channels of the first stage; 64 is ResNet-50, 16 is the same network a quarter as wide, with a sixteenth
    of the work, for small images and processors.

    ``acm``: Attend-and-Compare modules, {} for the default ones. ``normalise``: of the input in [0,1]; ``imagenet`` for
    weights that were trained on it (three channels).
    """

    name: Literal["resnet50"] = "resnet50"
    image_size: int = 224
    channels: int = 1
    norm: Literal["batch", "group"] = "batch"
    base: int = 64
    acm: ACMConfig | None = None
    normalise: Literal["none", "imagenet"] = "none"

    def check(self) -> None:
        if self.image_size < 32:
            raise ConfigError(f"image_size {self.image_size}: the tower halves the side five times; at least 32")
        if self.base < 8 or self.base % 8:
            raise ConfigError(f"base {self.base}: a multiple of 8, at least 8")
        if self.channels < 1:
            raise ConfigError(f"channels {self.channels}: at least 1")
        if self.normalise == "imagenet" and self.channels != 3:
            raise ConfigError(f"normalise 'imagenet' and channels {self.channels}: ImageNet's mean has 3 channels")
        if self.acm:
            self._check_acm(self.acm)

    def _check_acm(self, acm: ACMConfig) -> None:
        blocks = [f"{stage}.{block}" for stage, count in STAGES.items() for block in range(count)]
        for place in acm.at:
            if place not in (*STAGES, *blocks):
                raise ConfigError(
                    f"acm.at {place!r}: no such stage or block; stages are {', '.join(STAGES)}, blocks {', '.join(blocks)}"
                )
        smallest = min(int(place[5]) for place in acm.at)
        half = 2 * self.base << (smallest - 1)
        if half % acm.groups:
            raise ConfigError(
                f"base {self.base} and acm.groups {acm.groups}: the groups must divide half the channels of every "
                f"block, {half} in layer{smallest}; try {math.gcd(half, acm.groups)}"
            )

    def compares(self, place: str) -> bool:
        """Whether block ``place``, such as ``layer3.5``, has an ACM."""
        return self.acm is not None and not {place, place.partition(".")[0]}.isdisjoint(self.acm.at)

    def build(self) -> ResNet50:
        return ResNet50(self)


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    # 32 groups as in Wu & He 2018, or what divides the channels; a channel alone would lose its contrast.
    return nn.GroupNorm(math.gcd(32, channels // 2), channels)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut; [B,inside,h,w] to [B,4*planes,h/stride,w/stride]. ``groups`` gives it an ACM."""

    def __init__(self, inside: int, planes: int, stride: int, norm: str, groups: int | None = None) -> None:
        super().__init__()
        outside = 4 * planes
        self.conv1 = nn.Conv2d(inside, planes, 1, bias=False)
        self.bn1 = _norm(norm, planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = _norm(norm, planes)
        self.conv3 = nn.Conv2d(planes, outside, 1, bias=False)
        self.bn3 = _norm(norm, outside)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), _norm(norm, outside))
            if stride != 1 or inside != outside
            else None
        )
        # Start each block as the identity: steadier first rounds at small batch sizes (Goyal et al. 2017).
        nn.init.zeros_(self.bn3.weight)
        self.acm = ACM(outside, groups) if groups else None

    def compared(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The output and the ACM's correlation [B], None without an ACM."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.conv3(out)
        out, correlation = (self.bn3(out), None) if self.acm is None else self.acm(out, self.bn3)
        return F.relu(out + (x if self.downsample is None else self.downsample(x))), correlation

    def forward(self, x: Tensor) -> Tensor:
        return self.compared(x)[0]


class ResNet50(nn.Module):
    """Image tower: [B,channels,S,S] to [B,D]; ``grid(images)`` gives the last feature map [B,D,S/32,S/32]; D is 2048."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.cfg = cfg
        self.width = 32 * cfg.base
        self.own_losses = cfg.acm is not None and cfg.acm.weight > 0
        # Known everywhere, so never sent nor saved.
        known = cfg.normalise == "imagenet"
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1) if known else None, persistent=False)
        self.conv1 = nn.Conv2d(cfg.channels, cfg.base, 7, 2, 3, bias=False)
        self.bn1 = _norm(cfg.norm, cfg.base)
        inside = cfg.base
        for number, (stage, blocks) in enumerate(STAGES.items()):
            layers, planes = [], cfg.base << number
            for i in range(blocks):
                groups = cfg.acm.groups if cfg.acm and cfg.compares(f"{stage}.{i}") else None
                layers.append(Bottleneck(inside, planes, 2 if i == 0 and number else 1, cfg.norm, groups))
                inside = 4 * planes
            setattr(self, stage, nn.Sequential(*layers))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def grid(self, images_BCSS: Tensor) -> Tensor:
        return self._compared(images_BCSS)[0]

    def forward(self, images_BCSS: Tensor, with_losses: bool = False) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Features [B,D]; with ``with_losses`` also the tower's own losses (see ``models.vision.encode``)."""
        grid, correlations = self._compared(images_BCSS)
        features = grid.mean(dim=(2, 3))
        if not with_losses:
            return features
        if not self.own_losses:
            return features, {}
        acm = self.cfg.acm
        return features, {"orthogonality_loss": acm.weight * orthogonality(correlations, acm.form)}

    def _compared(self, images_BCSS: Tensor) -> tuple[Tensor, list[Tensor]]:
        if self.mean is not None:
            images_BCSS = (images_BCSS - self.mean) / self.std
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images_BCSS))), 3, 2, 1)
        correlations: list[Tensor] = []
        for stage in STAGES:
            blocks = getattr(self, stage)
            if all(block.acm is None for block in blocks):
                x = blocks(x)
                continue
            for block in blocks:
                x, correlation = block.compared(x)
                correlations += [] if correlation is None else [correlation]
        return x, correlations
