"""Augmentation of whole batches on tensors (kornia), with ranges that keep a chest film a chest film.

No horizontal flip by default: it would put the heart on the right.
"""

from __future__ import annotations

import kornia.augmentation as K
import torch
from torch import Tensor, nn

from models.config import ConfigError, config


@config
class AugmentConfig:
    """Ranges of the random changes. Zero switches one off."""

    degrees: float = 8.0
    translate: float = 0.06
    scale: float = 0.1
    brightness: float = 0.15
    contrast: float = 0.2
    crop: float = 0.0
    """Random resized crop down to this lost share of the area; 0 for none."""
    flip: float = 0.0
    """Probability of a left-right flip."""
    erase: float = 0.0
    """Probability of erasing a small rectangle."""

    def check(self) -> None:
        if not 0 <= self.degrees <= 180:
            raise ConfigError(f"degrees {self.degrees}: must be in [0, 180]")
        for name in ("translate", "scale", "brightness", "contrast", "crop", "flip", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} {getattr(self, name)}: must be in [0, 1]")

    def build(self, size: int) -> nn.Module:
        """A module from float images [B,C,S,S] in [0,1] to the same, drawing from torch's global generator."""
        steps: list[nn.Module] = []
        if self.crop:
            steps.append(K.RandomResizedCrop((size, size), scale=(1 - self.crop, 1.0), ratio=(0.9, 1.1)))
        if self.degrees or self.translate or self.scale:
            steps.append(
                K.RandomAffine(
                    self.degrees,
                    translate=(self.translate, self.translate) if self.translate else None,
                    scale=(1 - self.scale, 1 + self.scale) if self.scale else None,
                    p=1.0,
                )
            )
        if self.flip:
            steps.append(K.RandomHorizontalFlip(p=self.flip))
        if self.erase:
            steps.append(K.RandomErasing(scale=(0.02, 0.1), p=self.erase))
        return nn.Sequential(*steps, _Tone(self.brightness, self.contrast))


class _Tone(nn.Module):
    """Brightness and contrast of each image about its own mean, clamped to [0,1].

    Kornia's own colour jitter converts through three channels and costs more than the affine warp on grey images.
    """

    def __init__(self, brightness: float, contrast: float) -> None:
        super().__init__()
        self.brightness, self.contrast = brightness, contrast

    def forward(self, images_BCSS: Tensor) -> Tensor:
        if not self.brightness and not self.contrast:
            return images_BCSS
        shape = (len(images_BCSS), 1, 1, 1)
        gain = 1 + self.contrast * torch.empty(shape, device=images_BCSS.device).uniform_(-1, 1)
        shift = self.brightness * torch.empty(shape, device=images_BCSS.device).uniform_(-1, 1)
        mean = images_BCSS.mean(dim=(1, 2, 3), keepdim=True)
        return ((images_BCSS - mean) * gain + mean + shift).clamp(0, 1)


def to_float(images: Tensor, channels: int = 1) -> Tensor:
    """uint8 [B,1,S,S] to float in [0,1]; ``channels`` 3 repeats the grey plane for towers that expect colour."""
    out = images.float().div_(255)
    return out if channels == 1 else out.expand(-1, channels, -1, -1)
