"""ACM as its paper and the authors' module define it (Kim et al., ECCV 2020), without any of our shortcuts.

``literal`` walks over images, groups and positions with the mean taken off first; nothing is shared with ``models``.
``LiteralACM`` does the same mathematics with the layers of the published module, one for one and in its order: what
our speed and memory are compared with. Parameters of both carry the published names.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def literal(x: Tensor, state: dict[str, Tensor], groups: int) -> tuple[Tensor, Tensor]:
    """Y [B,C,H,W] and correlation [B] of ``x``, position by position; differentiable."""
    B, C, H, W = x.shape
    D = C // groups
    images, correlations = [], []
    for b in range(B):
        mean = torch.stack([x[b, c].sum() / (H * W) for c in range(C)])
        centred = torch.stack([x[b, c] - mean[c] for c in range(C)])
        K, Q, P = [], [], []
        for g in range(groups):
            part = slice(g * D, (g + 1) * D)
            for out, name in ((K, "add_mod"), (Q, "sub_mod")):
                out.append(_pooled(centred[part], state, name, g))
            P.append(_gate(mean[part], state, g, D))
        K, Q, P = torch.cat(K), torch.cat(Q), torch.cat(P)
        images.append(torch.stack([P[c] * (x[b, c] + (K[c] - Q[c])) for c in range(C)]))
        correlations.append(sum(K[c] * Q[c] for c in range(C)) / C)
    return torch.stack(images), torch.stack(correlations)


def _pooled(group: Tensor, state: dict[str, Tensor], name: str, g: int) -> Tensor:
    """Softmax-weighted sum over positions of one group [D,H,W]."""
    weight, bias = state[f"{name}.map_gen.0.weight"][g, :, 0, 0], state[f"{name}.map_gen.0.bias"][g]
    H, W = group.shape[1:]
    scores = [(weight * group[:, i, j]).sum() + bias for i in range(H) for j in range(W)]
    largest = max(float(s.detach()) for s in scores)
    powers = [(s - largest).exp() for s in scores]
    total = sum(powers)
    return sum(p / total * group[:, n // W, n % W] for n, p in enumerate(powers))


def _gate(mean: Tensor, state: dict[str, Tensor], g: int, D: int) -> Tensor:
    half = D // 2
    first, second = slice(g * half, (g + 1) * half), slice(g * D, (g + 1) * D)
    w1, b1 = state["mul_mod.feature_gen.0.weight"][first, :, 0, 0], state["mul_mod.feature_gen.0.bias"][first]
    w2, b2 = state["mul_mod.feature_gen.2.weight"][second, :, 0, 0], state["mul_mod.feature_gen.2.bias"][second]
    hidden = [((w1[i] * mean).sum() + b1[i]).clamp(min=0) for i in range(half)]
    return torch.stack([1 / (1 + (-(sum(w2[i, j] * hidden[j] for j in range(half)) + b2[i])).exp()) for i in range(D)])


class _Attend(nn.Module):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.map_gen = nn.Sequential(nn.Conv2d(channels, groups, 1, groups=groups))

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        a = self.map_gen(x).reshape(B * self.groups, 1, H * W).softmax(2).transpose(1, 2)
        return torch.bmm(x.reshape(B * self.groups, C // self.groups, H * W), a).view(B, C, 1, 1)


class _Modulate(nn.Module):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.feature_gen = nn.Sequential(
            nn.Conv2d(channels, channels // 2, 1, groups=groups),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // 2, channels, 1, groups=groups),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.feature_gen(x)


class LiteralACM(nn.Module):
    """[B,C,H,W] to ([B,C,H,W], correlation [B,1,1,1]) with the published layers."""

    def __init__(self, channels: int, groups: int = 32) -> None:
        super().__init__()
        self.add_mod, self.sub_mod = _Attend(channels, groups), _Attend(channels, groups)
        self.mul_mod = _Modulate(channels, groups)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.mean((2, 3), keepdim=True)
        centred = x - mean
        gate, K, Q = self.mul_mod(mean), self.add_mod(centred), self.sub_mod(centred)
        return (x + K - Q) * gate, (K * Q).mean(1, keepdim=True)


def ours_from_literal(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a ``LiteralACM`` (weights, or gradients) under the names and shapes of ``models.vision.acm.ACM``."""
    gate = "mul_mod.feature_gen"
    return {
        "attend": torch.stack([state[f"{name}.map_gen.0.weight"].flatten() for name in ("add_mod", "sub_mod")]),
        "squeeze_weight": state[f"{gate}.0.weight"].flatten(1),
        "squeeze_bias": state[f"{gate}.0.bias"],
        "excite_weight": state[f"{gate}.2.weight"].flatten(1),
        "excite_bias": state[f"{gate}.2.bias"],
    }
