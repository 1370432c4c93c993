"""Views of a film for self-distillation: the film as it is, one strong global view, and small local crops.

A crop, its rotation and its flip are one warp, so that a film is interpolated once. No flip by default: it would put
the heart on the right, and rotation alone cannot. Autocontrast and equalisation act on 256 grey levels, as in the
image libraries; equalisation and blur are drawn for each view of each film on its own.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from models.config import ConfigError, config

Range = tuple[float, float]
LEVELS = 256


@config
class ViewConfig:
    """How one kind of view is drawn. ``area``: share of the film's area; ``ratio``: width to height;
    ``autocontrast``, ``equalise``, ``blur``, ``flip``: probabilities; ``sigma``: of the blur, in pixels."""

    area: Range = (0.75, 1.0)
    ratio: Range = (0.75, 4 / 3)
    degrees: float = 15.0
    flip: float = 0.0
    autocontrast: float = 0.3
    equalise: float = 0.3
    blur: float = 0.3
    sigma: Range = (0.1, 2.0)

    def check(self) -> None:
        for name, least, most in (("area", 0.0, 1.0), ("ratio", 0.0, 10.0), ("sigma", 0.0, 100.0)):
            low, high = getattr(self, name)
            if not least < low <= high <= most:
                raise ConfigError(f"{name} {[low, high]}: a range from low to high, over {least:g} and up to {most:g}")
        if not 0 <= self.degrees <= 180:
            raise ConfigError(f"degrees {self.degrees}: must be in [0, 180]")
        for name in ("flip", "autocontrast", "equalise", "blur"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} {getattr(self, name)}: a probability in [0, 1]")


def draw(images_BCSS: Tensor, side: int, cfg: ViewConfig) -> Tensor:
    """One random view of each film, [B,C,side,side] in [0,1], from films in [0,1]; draws from the global generator."""
    out = warp(images_BCSS, boxes(len(images_BCSS), cfg, images_BCSS.device), side)
    out = _some(out, cfg.autocontrast, autocontrast)
    out = _some(out, cfg.equalise, equalise)
    return _some(out, cfg.blur, lambda part: blur(part, _uniform(len(part), cfg.sigma, part.device)))


def boxes(count: int, cfg: ViewConfig, device: torch.device | str = "cpu") -> Tensor:
    """Affine maps [count,2,3] from a view's coordinates to the film's, both from -1 to 1: crop, rotation, flip.

    Area is drawn uniformly and ratio log-uniformly, as in the usual random resized crop; a box that does not fit the
    film is made to fit, where that crop would draw anew. The box lies inside the film before it is turned.
    """
    area = _uniform(count, cfg.area, device)
    ratio = torch.exp(_uniform(count, (math.log(cfg.ratio[0]), math.log(cfg.ratio[1])), device))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x = (1 - width) * _uniform(count, (-1.0, 1.0), device)
    y = (1 - height) * _uniform(count, (-1.0, 1.0), device)
    angle = math.radians(cfg.degrees) * _uniform(count, (-1.0, 1.0), device)
    mirror = 1 - 2 * (torch.rand(count, device=device) < cfg.flip).float()
    cos, sin = angle.cos(), angle.sin()
    first = torch.stack([mirror * width * cos, -width * sin, x], dim=1)
    second = torch.stack([mirror * height * sin, height * cos, y], dim=1)
    return torch.stack([first, second], dim=1)


def warp(images_BCSS: Tensor, maps_B23: Tensor, side: int) -> Tensor:
    """The films under ``maps_B23`` at ``side`` pixels, bicubic, black outside the film, clamped to [0,1]."""
    grid = _grid(maps_B23.to(images_BCSS.dtype), side)
    out = F.grid_sample(images_BCSS, grid, mode="bicubic", padding_mode="zeros", align_corners=False)
    return out.clamp_(0, 1)


def _grid(maps_B23: Tensor, side: int) -> Tensor:
    """``F.affine_grid`` without corners aligned, as two outer sums; that function costs as much as the sampling."""
    middles = (2 * torch.arange(side, device=maps_B23.device, dtype=maps_B23.dtype) + 1) / side - 1
    grid = maps_B23.new_empty(len(maps_B23), side, side, 2)
    for axis in range(2):
        along, across, shift = (maps_B23[:, axis, i, None, None] for i in range(3))
        torch.add(along * middles[None, None, :], across * middles[None, :, None] + shift, out=grid[..., axis])
    return grid


def autocontrast(images_NCSS: Tensor) -> Tensor:
    """Each film and channel stretched from its darkest and brightest pixel to 0 and 1; a flat one stays as it is."""
    low, high = images_NCSS.amin(dim=(2, 3), keepdim=True), images_NCSS.amax(dim=(2, 3), keepdim=True)
    span = high - low
    return torch.where(span > 0, (images_NCSS - low) / span.clamp(min=1e-12), images_NCSS)


def equalise(images_NCSS: Tensor) -> Tensor:
    """Histogram equalisation of each film and channel on 256 levels, by the rule of the Python Imaging Library: with
    step = (pixels - pixels of the brightest level present) // 255, level v becomes (pixels darker than v + step // 2)
    // step; a film whose step is 0 stays as it is.
    """
    shape = images_NCSS.shape
    codes = (images_NCSS * (LEVELS - 1)).round().long().clamp_(0, LEVELS - 1).view(-1, shape[2] * shape[3])
    counts = torch.zeros(len(codes), LEVELS, dtype=torch.long, device=codes.device)
    counts.scatter_add_(1, codes, torch.ones_like(codes))
    brightest = counts.gather(1, codes.amax(dim=1, keepdim=True))
    step = (codes.shape[1] - brightest) // (LEVELS - 1)
    darker = counts.cumsum(dim=1) - counts
    table = (darker + step // 2) // step.clamp(min=1)
    out = table.clamp_(0, LEVELS - 1).gather(1, codes).to(images_NCSS.dtype) / (LEVELS - 1)
    return torch.where(step.view(*shape[:2], 1, 1) > 0, out.view(shape), images_NCSS)


def blur(images_NCSS: Tensor, sigma_N: Tensor) -> Tensor:
    """Gaussian blur, each film with its own ``sigma`` in pixels; the edge is repeated outwards."""
    reach = max(1, min(math.ceil(3 * float(sigma_N.max())), images_NCSS.shape[-1] - 1))
    offsets = torch.arange(-reach, reach + 1, device=images_NCSS.device, dtype=images_NCSS.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma_N[:, None].to(images_NCSS.dtype)) ** 2)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    N = len(images_NCSS)
    x = F.pad(images_NCSS, (reach,) * 4, mode="replicate").transpose(0, 1)  # one group a film
    x = F.conv2d(x, kernel.view(N, 1, 1, -1), groups=N)
    return F.conv2d(x, kernel.view(N, 1, -1, 1), groups=N).transpose(0, 1)


def _some(images: Tensor, probability: float, change) -> Tensor:
    """``change`` applied to each film with ``probability``."""
    if probability == 0:
        return images
    chosen = (torch.rand(len(images)) < probability).nonzero().flatten().to(images.device)
    if len(chosen) == 0:
        return images
    return images.index_copy(0, chosen, change(images[chosen]).to(images.dtype))


def _uniform(count: int, bounds: Range, device: torch.device | str) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(count, device=device)
