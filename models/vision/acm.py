"""Attend-and-Compare Module (ACM): lets a CNN compare regions of a film (Kim et al., ECCV 2020, arXiv 2007.07506).

Two attention maps in each of G channel groups pool the film into an object vector K and a context vector Q; their
difference is added everywhere, and a gate P from the film's mean scales each channel:

    Y = P * (X + K - Q),   K = sum_i softmax_i(w_k . X_i) (X_i - mean),   Q the same with w_q

The correlation d = mean_c K_c Q_c is kept small, so that the two look at different places (``orthogonality``).

The paper subtracts the mean from X before everything. That copy of X is never made here: a shift of all positions
leaves a softmax as it is, so the maps may be computed on X; and a map minus 1/N pools X to what the map itself pools
from X minus its mean. For the same reason the bias of the map convolution in the authors' code does
nothing, has no gradient, and does not exist here (``models.released`` takes it in and drops it).

Shape letters: B batch, C channels, G groups, D = C / G channels of a group, N = H * W positions, R rows, a map each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.config import ConfigError, config
from models.vision._layouts import layout

Form = Literal["per_image", "official"]


@config
class ACMConfig:
    """ACM in a ResNet.

    at: stages (``layer2``) or blocks (``layer3.5``) that get a module. The default is all 16 blocks, as for
        ChestX-ray14; the authors' detector has ``[layer2, layer3, layer4]``, there called res3 to res5.
    weight: of the orthogonality loss; 0 for none. form: see ``orthogonality``.
    """

    groups: int = 32
    at: tuple[str, ...] = ("layer1", "layer2", "layer3", "layer4")
    weight: float = 0.1
    form: Form = "per_image"

    def check(self) -> None:
        if self.groups < 1:
            raise ConfigError(f"groups {self.groups}: at least 1")
        if not self.at:
            raise ConfigError("at: empty; name stages or blocks, or leave acm away")
        if not self.weight >= 0:
            raise ConfigError(f"weight {self.weight}: must not be negative")


def orthogonality(correlations: Sequence[Tensor], form: Form) -> Tensor:
    """The scalar to minimise, from the correlations [B] of each module.

    per_image: mean over images of the sum over modules of |d|. The loss of one image depends on that image alone, so
        it can be clipped by image or patient for private training, and a batch split over devices gives the same.
    official: |mean over images of the sum over modules of d|, the authors' code. Opposite signs cancel, between
        modules and between images, so an image's gradient depends on the others: no privacy unit bounds it.
    """
    d_MB = torch.stack(list(correlations))
    return d_MB.abs().sum(0).mean() if form == "per_image" else d_MB.sum(0).mean().abs()


class ACM(nn.Module):
    """[B,C,H,W] to ([B,C,H,W], correlation [B]).

    The parameters are the authors' without the singleton sides of their 1x1 convolutions:
    attend [2,C] (w_k and w_q), squeeze_weight [C/2,D], squeeze_bias [C/2], excite_weight [C,D/2], excite_bias [C].

    Raises:
        ConfigError: ``groups`` does not divide half the channels.
    """

    def __init__(self, channels: int, groups: int = 32) -> None:
        super().__init__()
        if channels % (2 * groups):
            fitting = [g for g in range(1, channels // 2 + 1) if channels % (2 * g) == 0]
            nearest = min(fitting, key=lambda g: abs(g - groups))
            raise ConfigError(f"groups {groups} and {channels} channels: must divide half of them; try {nearest}")
        self.channels, self.groups = channels, groups
        inside = channels // groups
        self.attend = nn.Parameter(torch.empty(2, channels))
        self.squeeze_weight = nn.Parameter(torch.empty(channels // 2, inside))
        self.squeeze_bias = nn.Parameter(torch.zeros(channels // 2))
        self.excite_weight = nn.Parameter(torch.empty(channels, inside // 2))
        self.excite_bias = nn.Parameter(torch.zeros(channels))
        # Kaiming by fan-out, where a grouped convolution's fan-out is all of its outputs.
        for weight, outputs in (
            (self.attend, groups),
            (self.squeeze_weight, channels // 2),
            (self.excite_weight, channels),
        ):
            nn.init.normal_(weight, std=math.sqrt(2 / outputs))

    def forward(self, x_BCHW: Tensor, norm: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """ACM of ``x``, or of ``norm(x)`` where a norm is given.

        The output of a plain BatchNorm2d is then never made: its scale and shift become part of the module's own, which
        saves the memory of X and several passes over it. Any other norm, or one with hooks, is called as usual.
        """
        weights = (self.attend, self.squeeze_weight, self.squeeze_bias, self.excite_weight, self.excite_bias)
        if norm is None or not _can_absorb(norm, x_BCHW):
            x_BCHW = x_BCHW if norm is None else norm(x_BCHW)
            return compare(x_BCHW, *weights, groups=self.groups)
        if norm.training or norm.running_mean is None:
            y, d, mean_C, var_C = _compare(x_BCHW, norm.weight, norm.bias, *weights, self.groups, norm.eps)
            if norm.training and norm.track_running_stats:
                _track(norm, mean_C, var_C, x_BCHW.numel() // self.channels)
            return y, d
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * scale
        return _compare(x_BCHW, scale, shift, *weights, self.groups, None)[:2]

    @torch.no_grad()
    def maps(self, x_BCHW: Tensor) -> Tensor:
        """Both attentions of every group, [B,2,G,H,W]; each map sums to 1. The first is K's, the second Q's."""
        B, _, H, W = x_BCHW.shape
        scores = layout(x_BCHW, self.groups).score(_by_group(self.attend, self.groups).to(x_BCHW.dtype))
        maps = scores.softmax(-1, dtype=_small_type(x_BCHW))
        return maps.transpose(1, 2).reshape(B, 2, self.groups, H, W)

    @torch.no_grad()
    def looks(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For showing, in plain steps: ``maps``; by how much each group's comparison changes the features, the norm of
        P * (K - Q), [B,G]; and the correlation [B]."""
        maps, (B, C) = self.maps(x_BCHW), x_BCHW.shape[:2]
        x = x_BCHW.reshape(B, self.groups, C // self.groups, -1).to(maps.dtype)
        mean = x.mean(-1)
        K, Q = (torch.einsum("bgn,bgdn->bgd", maps[:, k].flatten(2), x) - mean for k in range(2))
        weights = (self.squeeze_weight, self.squeeze_bias, self.excite_weight, self.excite_bias)
        gate = _gate(mean, *(w.to(maps.dtype) for w in weights))[1]
        return maps, (gate * (K - Q)).norm(dim=-1), (K * Q).sum((1, 2)) / C

    def extra_repr(self) -> str:
        return f"channels={self.channels}, groups={self.groups}"


def compare(
    x_BCHW: Tensor,
    attend_2C: Tensor,
    squeeze_weight: Tensor,
    squeeze_bias: Tensor,
    excite_weight: Tensor,
    excite_bias: Tensor,
    groups: int,
) -> tuple[Tensor, Tensor]:
    """ACM as a function: (Y [B,C,H,W] in the input's type and memory format, correlation [B]).

    One kernel with its own backward: it keeps X and the maps, and reads X four times forward and three times backward.
    Of half-precision input, maps and vectors are made in float32; what has the size of X stays as it is.
    Once differentiable.
    """
    one, zero = attend_2C.new_ones(x_BCHW.shape[1]), attend_2C.new_zeros(x_BCHW.shape[1])
    parameters = (attend_2C, squeeze_weight, squeeze_bias, excite_weight, excite_bias)
    return _compare(x_BCHW, one, zero, *parameters, groups, None)[:2]


def _compare(z_BCHW: Tensor, *others: Any) -> tuple[Tensor, ...]:
    # A lower-precision region would round the small float32 parts, which cost nothing.
    with torch.autocast(z_BCHW.device.type, enabled=False):
        return _Compare.apply(z_BCHW, *others)[:4]


def _can_absorb(norm: nn.Module, z: Tensor) -> bool:
    """Whether ``norm`` is batch norm and no more, and more than one number stands behind each of its statistics."""
    heard = norm._forward_hooks or norm._forward_pre_hooks or norm._backward_hooks or norm._backward_pre_hooks
    return type(norm) is nn.BatchNorm2d and norm.affine and not heard and z.numel() > z.shape[1]


@torch.no_grad()
def _track(norm: nn.BatchNorm2d, mean_C: Tensor, var_C: Tensor, count: int) -> None:
    """Running statistics as BatchNorm2d keeps them: the variance unbiased, momentum None a plain average."""
    norm.num_batches_tracked.add_(1)
    for running, found in ((norm.running_mean, mean_C), (norm.running_var, var_C * (count / (count - 1)))):
        factor = norm.momentum if norm.momentum is not None else (1 / norm.num_batches_tracked).to(running)
        running.lerp_(found.to(running), factor)


def _by_group(attend_2C: Tensor, groups: int) -> Tensor:
    """[2,C] to [1,G,2,D]."""
    return attend_2C.view(2, groups, -1).transpose(0, 1).unsqueeze(0)


class _Compare(torch.autograd.Function):
    """On X = scale * Z + shift, where Z is what is given and X never exists.

    ``eps`` None: scale and shift are ``weight`` and ``bias``. Else they are what batch norm in training makes of
    ``weight``, ``bias`` and the batch, and the gradient goes through the statistics too.
    """

    generate_vmap_rule = True  # gradients per image by torch.func

    @staticmethod
    def forward(
        z: Tensor,
        weight: Tensor,
        bias: Tensor,
        attend: Tensor,
        squeeze_w: Tensor,
        squeeze_b: Tensor,
        excite_w: Tensor,
        excite_b: Tensor,
        groups: int,
        eps: float | None,
    ) -> tuple[Tensor, ...]:
        Z, small = layout(z, groups), _small_type(z)
        if eps is None:
            mean, mean_C, var_C = Z.mean(small), torch.zeros_like(bias, dtype=small), torch.ones_like(bias, dtype=small)
        else:
            mean, mean_C, var_C = Z.moments(small)
        scale, shift, _ = _affine(weight, bias, mean_C, var_C, eps, groups)
        maps = Z.score((_by_group(attend, groups) * scale.unsqueeze(2)).to(z.dtype)).softmax(-1, dtype=small)
        if small is z.dtype:
            pooled = Z.pool(maps) - mean.unsqueeze(2)
        else:  # less 1/N, because in half precision the mean must not pass through a product
            maps = maps.sub_(1 / maps.shape[-1]).to(z.dtype)
            pooled = Z.pool(maps).to(small) - _excess(maps, mean)
        K, Q = pooled.unbind(2)
        hidden, gate = _gate(scale * mean + shift, *(t.to(small) for t in (squeeze_w, squeeze_b, excite_w, excite_b)))
        y = Z.scaled((gate * scale).flatten(1), (gate * (shift + scale * (K - Q))).flatten(1))
        d = (scale.square() * K * Q).sum((1, 2)) / z.shape[1]
        return y, d, mean_C, var_C, maps, mean, pooled, hidden, gate

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        z, weight, bias, attend, squeeze_w, _, excite_w, _, ctx.groups, ctx.eps = inputs
        ctx.mark_non_differentiable(*output[2:])
        ctx.save_for_backward(z, weight, bias, attend, squeeze_w, excite_w, *output[2:])
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor | None, gd: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        z, weight, bias, attend, squeeze_w, excite_w, mean_C, var_C, maps, mean, pooled, hidden, gate = (
            ctx.saved_tensors
        )
        gy = torch.zeros_like(z) if gy is None else gy
        Z, (K, Q), half = layout(z, ctx.groups), pooled.unbind(2), gate.dtype is not z.dtype
        scale, shift, spread = _affine(weight, bias, mean_C, var_C, ctx.eps, ctx.groups)

        # Y = gate * (X + K - Q). ``out`` begins as what flows straight through it.
        out, gy_z, gy_sum = Z.scaled_back(gy, (gate * scale).flatten(1))
        gy_z, gy_sum = gy_z.view_as(gate), gy_sum.view_as(gate)
        g_gate = scale * gy_z + (shift + scale * (K - Q)) * gy_sum
        g_mean, *g_weights = _gate_back(
            g_gate, scale * mean + shift, hidden, gate, squeeze_w.to(gate), excite_w.to(gate)
        )
        g_K, g_Q = gate * gy_sum, -gate * gy_sum
        if gd is not None:
            each = gd.view(-1, 1, 1) / z.shape[1] * scale
            g_K, g_Q = g_K + each * Q, g_Q + each * K

        # The softmax: a_i (g . X_i - sum_j a_j g . X_j); shift cancels, and map a pools Z to K + mean. A third row of
        # ones is for what all positions share.
        g_KQ = torch.stack([g_K, g_Q], 2)
        vectors = scale.unsqueeze(2) * g_KQ
        middle = (vectors * (pooled + mean.unsqueeze(2))).sum(-1, keepdim=True)
        rows = Z.score(_and_a_third(vectors, 0.0).to(z.dtype)).sub_(_and_a_third(middle, -1.0))
        rows[:, :, :2] *= maps + 1 / maps.shape[-1] if half else maps
        by_rows = Z.pool(rows)[:, :, :2].to(gate.dtype)
        if half:
            by_rows = by_rows - _excess(rows[:, :, :2], mean)
        w = _by_group(attend, ctx.groups).to(gate.dtype)
        g_attend = (scale.unsqueeze(2) * by_rows).sum(0).transpose(0, 1).reshape(attend.shape)

        # The norm: sums over positions of gX and of gX * Z, from the parts that gX is made of.
        g_shift = gate * gy_sum + g_mean
        g_scale = gate * gy_z + (g_KQ * pooled).sum(2) + g_mean * mean + (w * by_rows).sum(2)
        g_weight, g_bias, slope, level = _affine_back(g_scale, g_shift, weight, mean_C, spread, maps.shape[-1])

        # Every other path into Z_i is a vector that all positions share, times a number of the position.
        everywhere = scale * g_mean if half else scale * (g_mean - g_K - g_Q)
        everywhere = everywhere / maps.shape[-1]
        if ctx.eps is not None:
            out.addcmul_(z, slope.view(1, -1, 1, 1).to(z.dtype))
            everywhere = everywhere + level.view_as(scale)
        Z.add_outer(out, maps, vectors.to(z.dtype))
        w = (scale.unsqueeze(2) * w).expand(len(z), -1, -1, -1)
        Z.add_outer(out, rows, torch.cat([w, everywhere.unsqueeze(2)], 2).to(z.dtype))
        return out, g_weight.to(weight), g_bias.to(bias), *(g.to(attend) for g in (g_attend, *g_weights)), None, None


def _and_a_third(rows_BGRx: Tensor, value: float) -> Tensor:
    return torch.cat([rows_BGRx, torch.full_like(rows_BGRx[:, :, :1], value)], 2)


def _excess(rows_BGRN: Tensor, mean_BGD: Tensor) -> Tensor:
    """What rows that should sum to 0, but were rounded, pool of the mean."""
    return rows_BGRN.sum(-1, dtype=mean_BGD.dtype, keepdim=True) * mean_BGD.unsqueeze(2)


def _affine(
    weight: Tensor, bias: Tensor, mean_C: Tensor, var_C: Tensor, eps: float | None, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    """scale and shift [1,G,D] of a norm, and 1 / standard deviation [C]."""
    inverse = var_C if eps is None else (var_C + eps).rsqrt()  # var_C is 1 where there is no norm
    scale = weight * inverse
    shift = bias - mean_C * scale
    return scale.view(1, groups, -1), shift.view(1, groups, -1), inverse


def _affine_back(
    g_scale: Tensor, g_shift: Tensor, weight: Tensor, mean_C: Tensor, inverse_C: Tensor, positions: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients [C] of weight and bias; and what the statistics add to the gradient of Z: slope * Z + level."""
    count = len(g_scale) * positions
    g_scale, g_shift = g_scale.sum(0).flatten(), g_shift.sum(0).flatten()
    g_normed = g_scale - mean_C * g_shift
    g_mean, g_var = -weight * inverse_C * g_shift, -0.5 * inverse_C**3 * weight * g_normed
    slope = 2 * g_var / count
    return inverse_C * g_normed, g_shift, slope, g_mean / count - slope * mean_C


def _small_type(x: Tensor) -> torch.dtype:
    """Type of the maps' softmax, of vectors and of the gate."""
    return torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype


def _gate(
    mean_BGD: Tensor, squeeze_w: Tensor, squeeze_b: Tensor, excite_w: Tensor, excite_b: Tensor
) -> tuple[Tensor, Tensor]:
    """Two grouped linear layers on the mean: hidden [B,G,D/2] after its ReLU, gate [B,G,D] after its sigmoid."""
    G, D = mean_BGD.shape[1:]
    hidden = torch.einsum("bgd,ghd->bgh", mean_BGD, squeeze_w.view(G, -1, D)).add(squeeze_b.view(G, -1)).relu()
    gate = torch.einsum("bgh,gdh->bgd", hidden, excite_w.view(G, D, -1)).add(excite_b.view(G, -1)).sigmoid()
    return hidden, gate


def _gate_back(
    g_gate: Tensor, mean: Tensor, hidden: Tensor, gate: Tensor, squeeze_w: Tensor, excite_w: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of the mean [B,G,D] and of the four parameters."""
    G, D = mean.shape[1:]
    g_excited = g_gate * gate * (1 - gate)
    g_squeezed = torch.einsum("bgd,gdh->bgh", g_excited, excite_w.view(G, D, -1)) * (hidden > 0)
    return (
        torch.einsum("bgh,ghd->bgd", g_squeezed, squeeze_w.view(G, -1, D)),
        torch.einsum("bgh,bgd->ghd", g_squeezed, mean).view_as(squeeze_w),
        g_squeezed.sum(0).flatten(),
        torch.einsum("bgd,bgh->gdh", g_excited, hidden).view_as(excite_w),
        g_excited.sum(0).flatten(),
    )
