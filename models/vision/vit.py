"""Vision transformer (Dosovitskiy et al., arXiv 2010.11929), pre-norm, with a CLS token.

Shape letters: B batch, S image side, P patches (g * g), T tokens (1 + P), D width, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ConfigError, config


@config
class Config:
    """Size of the tower. ViT-S/16 at 224 px: width 384, depth 12, heads 6, patch 16."""

    name: Literal["vit"] = "vit"
    image_size: int = 224
    patch: int = 16
    channels: int = 1
    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    positions: Literal["fixed", "learned"] = "fixed"
    pool: Literal["cls", "mean"] = "cls"
    drop_path: float = 0.0
    stem: Literal["patch", "conv"] = "patch"
    """``conv``: 3x3 convolutions of stride 2 in place of the one patch convolution; converges in fewer epochs
    (Xiao et al., arXiv 2106.14881). The patch must then be a power of two."""

    def check(self) -> None:
        for name in ("image_size", "patch", "channels", "width", "depth", "heads", "mlp_ratio"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} {getattr(self, name)}: must be positive")
        if self.image_size % self.patch:
            raise ConfigError(
                f"image_size {self.image_size} and patch {self.patch}: the patch must divide the image; "
                f"nearest sizes are {self.image_size // self.patch * self.patch} "
                f"and {-(-self.image_size // self.patch) * self.patch}"
            )
        if self.width % self.heads:
            raise ConfigError(f"width {self.width} and heads {self.heads}: the heads must divide the width")
        if self.positions == "fixed" and self.width % 4:
            raise ConfigError(f"width {self.width} and positions 'fixed': sine positions need a width divisible by 4")
        if self.stem == "conv" and (self.patch < 2 or self.patch & (self.patch - 1)):
            raise ConfigError(f"stem 'conv' and patch {self.patch}: the patch must be a power of two, such as 8 or 16")
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"drop_path {self.drop_path}: must be in [0, 1)")

    def build(self) -> ViT:
        return ViT(self)


def sine_positions(grid: int, width: int) -> Tensor:
    """Fixed 2-D sine positions [grid * grid, width]: a quarter each of sin y, cos y, sin x, cos x (MoCo v3)."""
    quarter = width // 4
    omega = torch.exp(-math.log(10000.0) * torch.arange(quarter, dtype=torch.float64) / quarter)
    angle = torch.arange(grid, dtype=torch.float64)[:, None] * omega
    y = angle[:, None, :].expand(grid, grid, quarter)
    x = angle[None, :, :].expand(grid, grid, quarter)
    table = torch.cat([y.sin(), y.cos(), x.sin(), x.cos()], dim=-1)
    return table.reshape(grid * grid, width).float()


class PatchEmbed(nn.Conv2d):
    """[B,channels,S,S] to [B,P,width]: the convolution whose stride is its kernel, as what it is, a linear layer on
    flattened patches. Convolution kernels for bfloat16 take several times as long to go backward on a processor."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__(channels, width, patch, stride=patch)

    def forward(self, images_BCSS: Tensor) -> Tensor:
        B, C, S, _ = images_BCSS.shape
        p = self.kernel_size[0]
        patches = images_BCSS.reshape(B, C, S // p, p, S // p, p).permute(0, 2, 4, 1, 3, 5)
        return F.linear(patches.reshape(B, (S // p) ** 2, C * p * p), self.weight.flatten(1), self.bias)


def conv_stem(channels: int, width: int, patch: int) -> nn.Sequential:
    """[B,channels,S,S] to [B,width,S/patch,S/patch] by log2(patch) convolutions of stride 2 and a 1x1 convolution.

    Xiao et al. normalise by batch; groups are used here, because running statistics of different scanners do not mix.
    """
    steps = patch.bit_length() - 1
    sizes = [channels, *(max(width >> (steps - i), 8) for i in range(steps))]
    layers: list[nn.Module] = []
    for inside, outside in zip(sizes, sizes[1:]):
        layers += [nn.Conv2d(inside, outside, 3, 2, 1, bias=False), nn.GroupNorm(1, outside), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(sizes[-1], width, 1))


class DropPath(nn.Module):
    """Drops the residual branch of whole samples with probability ``rate`` in training (Huang et al. 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def _kept(self, x: Tensor) -> Tensor:
        """One or zero for each sample, [B,1,...]."""
        return x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(1 - self.rate)

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0.0 or not self.training:
            return x
        return x * self._kept(x) / (1 - self.rate)

    def residual(self, x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        """``x + forward(branch(x))``, without computing the branch of a sample that drops it (as in DINOv2).

        On an accelerator all are computed: to learn which are kept would make it wait.
        """
        if self.rate == 0.0 or not self.training:
            return x + branch(x)
        kept = self._kept(x)
        if x.device.type != "cpu":
            return x + branch(x) * (kept / (1 - self.rate)).to(x.dtype)
        chosen = kept.flatten().nonzero().flatten()
        if len(chosen) == 0:
            return x
        out = branch(x if len(chosen) == len(x) else x[chosen])
        return x.index_add(0, chosen, out.to(x.dtype), alpha=1 / (1 - self.rate))

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k' / sqrt(d)) v over [B,H,T,d], in the form that is faster at this size.

    On a processor the fused kernel's backward loses against plain matrix products for short sequences and, at any
    length, in half precision (up to sevenfold at 37 tokens). The choice rests on sizes alone, not on the clock, so
    that a run repeats bit for bit.
    """
    training = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    half = q.dtype in (torch.bfloat16, torch.float16)
    if q.device.type != "cpu" or (k.shape[-2] >= 128 and not (training and half)):
        return F.scaled_dot_product_attention(q, k, v)
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v


class Attention(nn.Module):
    """Multi-head self-attention, [B,T,D] to [B,T,D]; with ``first``, of the first token alone, [B,1,D]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BTD: Tensor, first: bool = False) -> Tensor:
        B, _, D = x_BTD.shape
        if first:
            W, b = self.qkv.weight, self.qkv.bias
            q = self._split(F.linear(x_BTD[:, :1], W[:D], b[:D]), 1)
            k, v = self._split(F.linear(x_BTD, W[D:], b[D:]), 2)
            q = q[0]
        else:
            q, k, v = self._split(self.qkv(x_BTD), 3)
        return self.proj(attend(q, k, v).transpose(1, 2).reshape(B, -1, D))

    def _split(self, x: Tensor, parts: int) -> Tensor:
        """[B,T,parts*D] to [parts,B,H,T,d]."""
        B, T, wide = x.shape
        return x.view(B, T, parts, self.heads, wide // parts // self.heads).permute(2, 0, 3, 1, 4)


class Block(nn.Module):
    """Pre-norm transformer block, [B,T,D] to [B,T,D]; with ``first``, what becomes of the first token, [B,1,D]."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BTD: Tensor, first: bool = False) -> Tensor:
        if first:
            x_BTD = x_BTD[:, :1] + self.drop_path(self.attn(self.norm1(x_BTD), first=True))
        else:
            x_BTD = self.drop_path.residual(x_BTD, lambda x: self.attn(self.norm1(x)))
        return self.drop_path.residual(x_BTD, lambda x: self.mlp(self.norm2(x)))


class ViT(nn.Module):
    """Image tower. ``forward(images)`` pools to [B,D]; ``tokens(images)`` gives CLS and patches [B,1+P,D].

    Images are [B,channels,S,S] for any S that the patch divides: fixed positions are computed for the grid at hand,
    learned ones are resampled (bicubic) from the trained grid.
    """

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.cfg = cfg
        self.width = cfg.width
        grid = cfg.image_size // cfg.patch
        self.patch_embed: nn.Module
        if cfg.stem == "conv":
            self.patch_embed = conv_stem(cfg.channels, cfg.width, cfg.patch)
        else:
            self.patch_embed = PatchEmbed(cfg.channels, cfg.width, cfg.patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, cfg.width))
        if cfg.positions == "learned":
            self.pos_embed = nn.Parameter(torch.zeros(1, grid * grid, cfg.width))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        # Same on every machine, so never sent nor saved.
        self.register_buffer("sine", sine_positions(grid, cfg.width)[None] if cfg.positions == "fixed" else None, False)
        rates = [cfg.drop_path * i / max(cfg.depth - 1, 1) for i in range(cfg.depth)]
        self.blocks = nn.ModuleList(Block(cfg.width, cfg.heads, cfg.mlp_ratio, rate) for rate in rates)
        self.norm = nn.LayerNorm(cfg.width, eps=1e-6)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        # The patch convolution is a linear layer on flattened patches and is initialised as one.
        if isinstance(self.patch_embed, nn.Conv2d):
            nn.init.xavier_uniform_(self.patch_embed.weight.view(self.width, -1))
            nn.init.zeros_(self.patch_embed.bias)

    def positions(self, grid: int) -> Tensor:
        """Position table [1,grid*grid,D] for a grid of any side."""
        if self.cfg.positions == "fixed":
            if self.sine.shape[1] == grid * grid:
                return self.sine
            return sine_positions(grid, self.width)[None].to(self.sine)
        trained = math.isqrt(self.pos_embed.shape[1])
        if trained == grid:
            return self.pos_embed
        table = self.pos_embed.view(1, trained, trained, -1).permute(0, 3, 1, 2)
        table = F.interpolate(table, size=(grid, grid), mode="bicubic", align_corners=False)
        return table.permute(0, 2, 3, 1).reshape(1, grid * grid, -1)

    def tokens(self, images_BCSS: Tensor) -> Tensor:
        """CLS and patch tokens after the last norm, [B,1+P,D].

        Raises:
            ValueError: images that are not square or whose side the patch does not divide.
        """
        x_BTD = self._embed(images_BCSS)
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return self.norm(x_BTD)

    def _embed(self, images_BCSS: Tensor) -> Tensor:
        side = images_BCSS.shape[-1]
        if images_BCSS.shape[-2] != side or side % self.cfg.patch:
            raise ValueError(
                f"images of {tuple(images_BCSS.shape[-2:])} pixels: need a square whose side is a "
                f"multiple of the patch ({self.cfg.patch})"
            )
        x_BPD = self.patch_embed(images_BCSS)
        if self.cfg.stem == "conv":
            x_BPD = x_BPD.flatten(2).transpose(1, 2)
        x_BPD = x_BPD + self.positions(side // self.cfg.patch).to(x_BPD.dtype)
        return torch.cat([self.cls_token.to(x_BPD.dtype).expand(len(x_BPD), -1, -1), x_BPD], dim=1)

    def forward(self, images_BCSS: Tensor) -> Tensor:
        if self.cfg.pool == "mean":
            return self.tokens(images_BCSS)[:, 1:].mean(dim=1)
        x_BTD = self._embed(images_BCSS)
        *body, last = self.blocks
        for block in body:
            x_BTD = block(x_BTD)
        # Only the class token is read, so the last block need not move the patches.
        return self.norm(last(x_BTD, first=True))[:, 0]
