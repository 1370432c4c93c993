"""Sites with low-rank adapters of a few layers, without a model: for the tests and the benchmark of the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from models.registry import configure
from models.text.adapters import draw
from strategies.rules._adapters import AdapterRule, Setting
from strategies.rules._base import Update

SETTINGS = {
    "alternate": {},
    "ffa": {},
    "stack": {"trusted_aggregator": True},
    "fedex": {"trusted_aggregator": True},
    "svd": {"trusted_aggregator": True},
    "average": {"allow_biased": True},
}
EXACT = ("alternate", "ffa", "stack", "fedex")
ALPHA = 32.0
LAYERS = {"layers.0.self_attn.q_proj": (96, 160), "layers.0.mlp.up_proj": (200, 72)}


def names(layer: str) -> tuple[str, str]:
    return f"text_lora/{layer}.lora_A.weight", f"text_lora/{layer}.lora_B.weight"


def rule(name: str, wire: torch.dtype = torch.float32, **settings) -> AdapterRule:
    made = configure("strategies.rules", {"name": name, **SETTINGS[name], **settings}).build()
    made.setting = Setting(ALPHA, wire, lambda number, a, shape: draw(7, "phase", number, a, shape))
    return made


def begun(
    name: str, current: dict[str, Tensor], wire: torch.dtype = torch.float32
) -> tuple[AdapterRule, dict[str, Tensor]]:
    """The rule before its first round, and the tensors that this begins with."""
    made = rule(name, wire)
    return made, current | made.begin(made.setting, current)


def start(
    rank: int, layers: Mapping[str, tuple[int, int]] = LAYERS, seed: int = 0, b: float = 0.0
) -> dict[str, Tensor]:
    """A as LoRA draws it, B of standard deviation ``b``."""
    g = torch.Generator().manual_seed(seed)
    out = {}
    for layer, (o, i) in layers.items():
        a_name, b_name = names(layer)
        out[a_name] = draw(seed, "start", 0, a_name, (rank, i))
        out[b_name] = b * torch.randn(o, rank, generator=g)
    return out


def moved(
    current: Mapping[str, Tensor], train: str, weights: Sequence[float], seed: int = 1, scale: float = 0.05
) -> list[Update]:
    """Sites that each moved the factors ``train`` their own way; an update holds these alone."""
    g = torch.Generator().manual_seed(seed)
    out = []
    for number, weight in enumerate(weights):
        mine = {n: t for n, t in current.items() if any(n.endswith(f".lora_{f}.weight") for f in train)}
        mine = {n: t + scale * torch.randn(t.shape, generator=g) for n, t in mine.items()}
        out.append(Update(f"site-{number:02d}", mine, weight))
    return out


def true_mean(current: Mapping[str, Tensor], updates: Sequence[Update], layer: str) -> np.ndarray:
    """The weighted mean of the sites' scaled products, dense, float64, in a loop."""
    a_name, b_name = names(layer)
    total, out = sum(u.weight for u in updates), 0.0
    for update in updates:
        site = {**current, **update.tensors}
        a, b = site[a_name].double().numpy(), site[b_name].double().numpy()
        out = out + update.weight / total * ALPHA / len(a) * (b @ a)
    return out


def reached(new: Mapping[str, Tensor], made: AdapterRule, layer: str) -> np.ndarray:
    """What the adapters and the fold add to the base weight, dense, float64, from what is stored."""
    a_name, b_name = names(layer)
    a, b = new[a_name].double().numpy(), new[b_name].double().numpy()
    out = ALPHA / len(a) * (b @ a)
    if made.fold is not None:
        column = 0
        fold_a = made.fold.tensors[f"{layer}.lora_A.weight"].double().numpy()
        fold_b = made.fold.tensors[f"{layer}.lora_B.weight"].double().numpy()
        for rank, c in made.fold.terms:
            out = out + c * fold_b[:, column : column + rank] @ fold_a[column : column + rank]
            column += rank
    return out


def error(current, updates, new, made, layers=LAYERS) -> float:
    """||reached - true mean|| / ||true mean|| over all layers."""
    off = true = 0.0
    for layer in layers:
        want = true_mean(current, updates, layer)
        off += ((reached(new, made, layer) - want) ** 2).sum()
        true += (want**2).sum()
    return float(np.sqrt(off / true))


ONE = {"layers.0.self_attn.q_proj": (384, 384)}


def targets(sites: int, het: float, seed: int = 0, size: int = 384, rank: int = 24) -> list[Tensor]:
    """What the sites' adapters should become: a common matrix of ``rank`` and ``het`` times one of their own."""
    g = torch.Generator().manual_seed(seed)
    low = lambda: torch.randn(size, rank, generator=g) @ torch.randn(rank, size, generator=g) / (rank * size) ** 0.5
    common = low()
    return [common + het * low() for _ in range(sites)]


def trained(
    current: Mapping[str, Tensor], train: str, wanted: Sequence[Tensor], base: Tensor, steps: int = 40, lr: float = 0.02
) -> list[Update]:
    """Each site trains the factors ``train`` towards its own target with Adam, for ``steps``, on the base that there is."""
    a_name, b_name = names(next(iter(ONE)))
    out = []
    for number, target in enumerate(wanted):
        a, b = (current[n].clone().requires_grad_(f in train) for n, f in ((a_name, "A"), (b_name, "B")))
        optimizer = torch.optim.Adam([p for p in (a, b) if p.requires_grad], lr=lr)
        for _ in range(steps):
            optimizer.zero_grad()
            (base + ALPHA / len(a) * b @ a - target).square().sum().backward()
            optimizer.step()
        moved = {n: p.detach() for n, p, f in ((a_name, a, "A"), (b_name, b, "B")) if f in train}
        out.append(Update(f"site-{number}", moved, 1.0))
    return out


def campaign(
    name: str, het: float, rounds: int = 6, sites: int = 5, rank: int = 16, lr: float = 0.02
) -> tuple[list[float], float]:
    """Rounds of a rule on the toy: its error in each, and the distance to the mean target at the end, both relative."""
    wanted = targets(sites, het)
    made, current = begun(name, start(rank, ONE))
    layer, base, errors = next(iter(ONE)), torch.zeros(384, 384), []
    for number in range(1, rounds + 1):
        updates = trained(current, made.train(number, current), wanted, base, lr=lr)
        new = made.combine(current, updates)
        errors.append(error(current, updates, new, made, ONE))
        if made.fold is not None:
            base, made.fold = base + made.fold.delta(layer).float(), None
        current = new
    mean = torch.stack(wanted).mean(0)
    whole = base + torch.from_numpy(reached(current, made, layer)).float()
    return errors, float((whole - mean).norm() / mean.norm())


def llama_1b(rank: int = 16) -> tuple[dict[str, torch.Size], int]:
    """Shapes of the adapters on all seven linears of a Llama of 1B (the published shape of Llama-3.2-1B), by our names, and
    the parameters of the trunk; on the meta device, without memory."""
    from transformers import LlamaConfig, LlamaModel

    from models.text.adapters import adapt
    from models.text.config import Lora

    about = LlamaConfig(
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        vocab_size=128_256,
    )
    with torch.device("meta"):
        trunk = LlamaModel(about)
        parameters = sum(p.numel() for p in trunk.parameters())
        part = adapt(trunk, Lora(rank=rank, alpha=2.0 * rank))
    return {f"text_lora/{n}": t.shape for n, t in part.state_dict().items()}, parameters


def bytes_of(shapes: Mapping[str, torch.Size], factors: str, width: int = 2) -> int:
    """Bytes of the tensors of ``factors`` at ``width`` bytes a number (2: bfloat16)."""
    return sum(width * s.numel() for n, s in shapes.items() if any(n.endswith(f".lora_{f}.weight") for f in factors))
