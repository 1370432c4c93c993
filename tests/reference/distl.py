"""The self-training distillation step, written literally: what the fast one is held against, in value and in speed.

Nothing of the project is imported. Every operation stands where the published procedure has it: attention with its
full matrix, positions resized in every call, one log-softmax for each pair of views, a class head on all views, a
normalised copy of the prototype matrix in every call, clipping and the teacher's average in loops over parameters.

Notation: v1 the clean view, v2 the augmented one, v3... local crops; s student, t teacher; K prototypes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class Sizes:
    """Of the network. ``grid``: side of the position table in patches."""

    width: int = 384
    depth: int = 12
    heads: int = 6
    patch: int = 8
    grid: int = 28
    channels: int = 1
    hidden: int = 2048
    bottleneck: int = 256
    prototypes: int = 65536
    class_hidden: int = 256
    findings: int = 1
    drop_path: float = 0.0


@dataclass
class Settings:
    """Of the step."""

    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    centre_momentum: float = 0.9
    ssl_weight: float = 0.5
    clip: float = 3.0


def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
    if rate == 0.0 or not training:
        return x
    keep = torch.rand(x.shape[0], 1, 1, device=x.device) < 1 - rate
    return x / (1 - rate) * keep


class Block(nn.Module):
    def __init__(self, sizes: Sizes, rate: float) -> None:
        super().__init__()
        D = sizes.width
        self.heads, self.rate = sizes.heads, rate
        self.scale = (D // sizes.heads) ** -0.5
        self.norm1, self.norm2 = nn.LayerNorm(D, eps=1e-6), nn.LayerNorm(D, eps=1e-6)
        self.qkv, self.proj = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.fc1, self.fc2 = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)

    def attention(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        weights = (q @ k.transpose(-2, -1)) * self.scale
        weights = weights.softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(B, N, C))

    def forward(self, x: Tensor) -> Tensor:
        x = x + drop_path(self.attention(self.norm1(x)), self.rate, self.training)
        return x + drop_path(self.fc2(F.gelu(self.fc1(self.norm2(x)))), self.rate, self.training)


class Backbone(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.patches = nn.Conv2d(sizes.channels, sizes.width, sizes.patch, stride=sizes.patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, sizes.width))
        # The class token's own position is one vector with the token, which is all that is ever read of the two.
        self.positions = nn.Parameter(torch.zeros(1, sizes.grid**2, sizes.width))
        nn.init.trunc_normal_(self.positions, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        rates = [sizes.drop_path * i / max(sizes.depth - 1, 1) for i in range(sizes.depth)]
        self.blocks = nn.ModuleList(Block(sizes, rate) for rate in rates)
        self.norm = nn.LayerNorm(sizes.width, eps=1e-6)

    def position_table(self, grid: int) -> Tensor:
        trained, D = self.sizes.grid, self.sizes.width
        if grid == trained:
            return self.positions
        table = self.positions.reshape(1, trained, trained, D).permute(0, 3, 1, 2)
        table = F.interpolate(table, size=(grid, grid), mode="bicubic", align_corners=False)
        return table.permute(0, 2, 3, 1).reshape(1, -1, D)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = tokens + self.position_table(x.shape[-1] // self.sizes.patch)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)[:, 0]


class FeatureHead(nn.Module):
    """D to hidden to hidden to bottleneck with GELU, L2-normalised, then K unit rows without bias."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.fc1 = nn.Linear(sizes.width, sizes.hidden)
        self.fc2 = nn.Linear(sizes.hidden, sizes.hidden)
        self.fc3 = nn.Linear(sizes.hidden, sizes.bottleneck)
        self.last = nn.Parameter(torch.empty(sizes.prototypes, sizes.bottleneck))
        nn.init.trunc_normal_(self.last, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc3(F.gelu(self.fc2(F.gelu(self.fc1(x)))))
        x = x / x.norm(dim=-1, keepdim=True)
        return x @ (self.last / self.last.norm(dim=1, keepdim=True)).T


class ClassHead(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.fc1 = nn.Linear(sizes.width, sizes.class_hidden)
        self.fc2 = nn.Linear(sizes.class_hidden, sizes.class_hidden)
        self.fc3 = nn.Linear(sizes.class_hidden, sizes.findings)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class Network(nn.Module):
    """Backbone and both heads; crops of one size go through the backbone together, in their order."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.backbone, self.features, self.classes = Backbone(sizes), FeatureHead(sizes), ClassHead(sizes)

    def forward(self, views: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Prototype logits and class logits of each view."""
        outputs, start = [], 0
        for end in range(1, len(views) + 1):
            if end == len(views) or views[end].shape[-1] != views[start].shape[-1]:
                outputs.append(self.backbone(torch.cat(views[start:end])))
                start = end
        whole = torch.cat(outputs)
        return list(self.features(whole).chunk(len(views))), list(self.classes(whole).chunk(len(views)))


class Reference:
    """Student, teacher, centre and optimiser, and the step that moves them."""

    def __init__(
        self,
        sizes: Sizes,
        settings: Settings,
        lr: float = 1e-4,
        weight_decay: float = 0.01,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings = settings
        self.student, self.teacher = Network(sizes).to(device), Network(sizes).to(device)
        self.student.train()
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.eval()
        for p in self.teacher.parameters():
            p.requires_grad_(False)
        self.centre = torch.zeros(1, sizes.prototypes, device=device)
        decayed = [p for n, p in self.student.named_parameters() if not self.undecayed(n, p)]
        plain = [p for n, p in self.student.named_parameters() if self.undecayed(n, p)]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=lr)

    @staticmethod
    def undecayed(name: str, p: Tensor) -> bool:
        """Biases and one-dimensional tensors; and tokens and positions, which the project leaves alone as well."""
        return p.ndim == 1 or name.endswith(("cls_token", "positions"))

    # -- the losses ------------------------------------------------------------------------------------------

    def pseudo_labels(self, classes: list[Tensor]) -> Tensor:
        return torch.sigmoid(classes[0])  # from v1, soft

    def diagnosis(self, classes: list[Tensor]) -> Tensor:
        return classes[1]  # from v2 only

    def targets(self, t: Tensor) -> Tensor:
        return torch.softmax((t - self.centre) / self.settings.teacher_temperature, dim=-1)

    def self_supervision(self, s: list[Tensor], t: list[Tensor]) -> Tensor:
        total, terms = 0.0, 0
        for i, teacher in enumerate(t):
            target = self.targets(teacher)
            for j, student in enumerate(s):
                if j == i:
                    continue
                log_p = F.log_softmax(student / self.settings.student_temperature, dim=-1)
                total = total + torch.sum(-target * log_p, dim=-1).mean()
                terms += 1
        return total / terms

    def bce(self, z: Tensor, target: Tensor) -> Tensor:
        return -(target * F.logsigmoid(z) + (1 - target) * F.logsigmoid(-z)).mean()

    def move_centre(self, t: list[Tensor]) -> None:
        m = self.settings.centre_momentum
        mean = torch.cat(t).sum(dim=0, keepdim=True) / sum(len(x) for x in t)
        self.centre = self.centre * m + mean * (1 - m)

    def losses(self, views: list[Tensor], alpha: float, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Of one unlabelled batch, or with ``labels`` (0 or 1, [B,F]) of one correction; the centre moves after."""
        with torch.no_grad():
            t, t_classes = self.teacher(views[:2])
        s, s_classes = self.student(views)
        w = self.settings.ssl_weight
        ssl = self.self_supervision(s, t)
        z = self.diagnosis(s_classes)
        if labels is None:
            task = alpha * self.bce(z, self.pseudo_labels(t_classes))
        else:
            task = self.bce(z, labels)
        self.move_centre(t)
        return {"ssl": ssl, "task": task, "loss": w * ssl + (1 - w) * task}

    # -- the step --------------------------------------------------------------------------------------------

    def clip(self) -> None:
        for p in self.student.parameters():
            if p.grad is not None:
                norm = p.grad.norm(2)
                factor = self.settings.clip / (norm + 1e-6)
                if factor.item() < 1:
                    p.grad.mul_(factor)

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        for q, p in zip(self.teacher.parameters(), self.student.parameters()):
            q.mul_(momentum).add_((1 - momentum) * p.detach())

    def step(
        self,
        views: list[Tensor],
        *,
        lr: float,
        alpha: float,
        momentum: float,
        freeze_last: bool = False,
        labels: Tensor | None = None,
        move_teacher: bool = True,
    ) -> dict[str, float]:
        """One optimiser step. A correction (``labels``) does not move the teacher."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        losses = self.losses(views, alpha, labels)
        self.optimiser.zero_grad()
        losses["loss"].backward()
        self.clip()
        if freeze_last:
            self.student.features.last.grad = None
        self.optimiser.step()
        if labels is None and move_teacher:
            self.follow(momentum)
        return {name: value.item() for name, value in losses.items()}


# -- schedules, by the step ------------------------------------------------------------------------------------


def learning_rates(base: float, final: float, epochs: int, steps: int, warmup_epochs: int) -> list[float]:
    """Linear from 0 over the warm-up, then a cosine to ``final``; one value a step."""
    warm = warmup_epochs * steps
    rising = [base * i / (warm - 1) for i in range(warm)] if warm > 1 else [0.0] * warm
    rest = epochs * steps - warm
    return rising + [final + 0.5 * (base - final) * (1 + math.cos(math.pi * i / rest)) for i in range(rest)]


def momenta(base: float, final: float, epochs: int, steps: int) -> list[float]:
    """The teacher's inertia, one value a step."""
    total = epochs * steps
    return [final + 0.5 * (base - final) * (1 + math.cos(math.pi * i / total)) for i in range(total)]


def alphas(epochs: int) -> list[float]:
    """The weight of pseudo-labels, one value an epoch."""
    return [2 * (e + 1) / epochs for e in range(epochs)]


# -- weights from the project's names --------------------------------------------------------------------------


def project_name(name: str) -> str:
    """``backbone.blocks.0.qkv.weight`` to ``vision/blocks.0.attn.qkv.weight``; heads are ``prototypes/`` and ``head/``."""
    part, _, rest = name.partition(".")
    if part == "backbone":
        rest = rest.replace("patches.", "patch_embed.").replace("positions", "pos_embed")
        for own, theirs in (("qkv", "attn.qkv"), ("proj", "attn.proj"), ("fc1", "mlp.0"), ("fc2", "mlp.2")):
            rest = rest.replace(f".{own}.", f".{theirs}.")
        return f"vision/{rest}"
    for number, own in enumerate(("fc1", "fc2", "fc3")):
        rest = rest.replace(own, f"{2 * number}")
    if part == "features":
        return "prototypes/prototypes" if rest == "last" else f"prototypes/mlp.{rest}"
    return f"head/{rest}"


@torch.no_grad()
def load(network: Network, tensors: dict[str, Tensor]) -> None:
    """Copy flat tensors of the project into ``network``."""
    for name, own in network.state_dict().items():
        own.copy_(tensors[project_name(name)])


def gradients(network: Network) -> dict[str, Tensor | None]:
    """Gradient of each parameter, by the project's names."""
    return {project_name(n): None if p.grad is None else p.grad.clone() for n, p in network.named_parameters()}
