"""ResNet-50 (He et al., arXiv 1512.03385) with the stride in the 3x3 convolution and torchvision's parameter names,
so that released weights that use those names load as they are.
"""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ConfigError, config


@config
class Config:
    """``norm``: ``batch`` is the original; ``group`` (32 groups) keeps no running statistics, which hospitals with
    different scanners otherwise average into a mixture that fits none of them (Hsieh et al. 2020).

    ``base``: channels of the first stage; 64 is ResNet-50, 16 is the same network a quarter as wide, with a sixteenth
    of the work, for small images and processors.
    """

    name: Literal["resnet50"] = "resnet50"
    image_size: int = 224
    channels: int = 1
    norm: Literal["batch", "group"] = "batch"
    base: int = 64

    def check(self) -> None:
        if self.image_size < 32:
            raise ConfigError(f"image_size {self.image_size}: the tower halves the side five times; at least 32")
        if self.base < 8 or self.base % 8:
            raise ConfigError(f"base {self.base}: a multiple of 8, at least 8")
        if self.channels < 1:
            raise ConfigError(f"channels {self.channels}: at least 1")

    def build(self) -> ResNet50:
        return ResNet50(self)


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    # 32 groups as in Wu & He 2018, or what divides the channels; a channel alone would lose its contrast.
    return nn.GroupNorm(math.gcd(32, channels // 2), channels)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut; [B,inside,h,w] to [B,4*planes,h/stride,w/stride]."""

    def __init__(self, inside: int, planes: int, stride: int, norm: str) -> None:
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

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
    """Image tower: [B,channels,S,S] to [B,D]; ``grid(images)`` gives the last feature map [B,D,S/32,S/32]; D is 2048."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.cfg = cfg
        self.width = 32 * cfg.base
        self.conv1 = nn.Conv2d(cfg.channels, cfg.base, 7, 2, 3, bias=False)
        self.bn1 = _norm(cfg.norm, cfg.base)
        inside = cfg.base
        for stage, blocks in enumerate((3, 4, 6, 3), start=1):
            layers, planes = [], cfg.base << (stage - 1)
            for i in range(blocks):
                layers.append(Bottleneck(inside, planes, 2 if i == 0 and stage > 1 else 1, cfg.norm))
                inside = 4 * planes
            setattr(self, f"layer{stage}", nn.Sequential(*layers))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def grid(self, images_BCSS: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images_BCSS))), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward(self, images_BCSS: Tensor) -> Tensor:
        return self.grid(images_BCSS).mean(dim=(2, 3))
