"""LoRA on a trunk, by peft: what is adapted, the adapters as a component of their own, their files, and merging.

A component must hold the adapters and nothing else, as it is what trains, travels and is averaged. ``Adapters`` is such
a module: it has the trunk's own adapter layers under the trunk's paths, so that its names read
``layers.0.self_attn.q_proj.lora_A.weight``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.checkpoint import load as load_tensors
from models.checkpoint import save as save_tensors
from models.checkpoint import write_atomically
from models.config import ConfigError
from models.randomness import stream
from models.text.config import Lora

NAME = "default"
_PEFT = "base_model.model."
_ATTENTION = re.compile(r"(^|\.)(self_attn|attn|attention)\.")
_BLOCK = re.compile(r"(^|\.)layers?\.\d+\.")
_SHOWN = 4


def targets(trunk: nn.Module, lora: Lora) -> list[str]:
    """Full names of the linear layers that ``lora`` adapts.

    Raises:
        ConfigError: a name that no layer has; the text lists those there are.
    """
    linear = [n for n, m in trunk.named_modules() if isinstance(m, nn.Linear) and _BLOCK.search(n)]
    if lora.targets == "all":
        return linear
    if lora.targets == "attention":
        return [n for n in linear if _ATTENTION.search(n)]
    found = [n for n in linear if any(n == t or n.endswith(f".{t}") for t in lora.targets)]
    unknown = [t for t in lora.targets if not any(n == t or n.endswith(f".{t}") for n in linear)]
    if unknown:
        known = sorted({n.rsplit(".", 1)[-1] for n in linear})
        raise ConfigError(f"lora.targets {unknown[0]!r}: no linear layer of that name; there are {', '.join(known)}")
    return found


def adapt(trunk: nn.Module, lora: Lora) -> Adapters:
    """Put fresh adapters into ``trunk`` (in place), freeze the rest, and give the adapters as a module.

    B starts at zero, so that nothing changes before training; A draws from torch's global generator.
    """
    from peft import LoraConfig, inject_adapter_in_model

    about = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets(trunk, lora), bias="none"
    )
    trunk.requires_grad_(False)
    inject_adapter_in_model(about, trunk, adapter_name=NAME)
    adapters = Adapters(trunk)
    adapters.float()  # small steps on bfloat16 weights are lost to rounding
    return adapters


def _layers(trunk: nn.Module) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    for name, module in trunk.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


class Adapters(nn.Module):
    """The adapter layers of a trunk: the same tensors, under the trunk's paths."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        for path, layer in _layers(trunk):
            here: nn.Module = self
            for part in path.split("."):
                if part not in here._modules:
                    here.add_module(part, nn.Module())
                here = here._modules[part]
            here.add_module("lora_A", layer.lora_A[NAME])
            here.add_module("lora_B", layer.lora_B[NAME])
            here.add_module("dropout", layer.lora_dropout[NAME])  # so that train() reaches it
        self._of = (trunk,)  # in a tuple, which is no submodule

    @torch.no_grad()
    def resize(self, rank: int, alpha: float) -> None:
        """Another rank: what rows of A and columns of B there are stay, new ones are zero; the scale is alpha / rank."""
        for _, layer in _layers(self._of[0]):
            if layer.r[NAME] == rank:
                continue
            a, b = layer.lora_A[NAME], layer.lora_B[NAME]
            held = min(rank, layer.r[NAME])
            new_a, new_b = a.weight.new_zeros(rank, a.in_features), b.weight.new_zeros(b.out_features, rank)
            new_a[:held], new_b[:, :held] = a.weight[:held], b.weight[:, :held]
            a.weight, b.weight = nn.Parameter(new_a), nn.Parameter(new_b)
            a.out_features = b.in_features = layer.r[NAME] = rank
            layer.scaling[NAME] = alpha / rank

    @property
    def rank(self) -> int:
        """The rank that the layers have now."""
        return next(layer.r[NAME] for _, layer in _layers(self._of[0]))

    def weights(self) -> dict[str, nn.Parameter]:
        """The frozen weight of every adapted layer, by its path."""
        return {path: layer.base_layer.weight for path, layer in _layers(self._of[0])}

    def save(self, folder: Path, lora: Lora, base_hash: str) -> None:
        """Write a peft adapter folder; ``base_hash`` says which weights it belongs to."""
        folder.mkdir(parents=True, exist_ok=True)
        modules = sorted({name.rsplit(".", 2)[0] for name in self.state_dict()})
        about = {
            "peft_type": "LORA",
            "task_type": "FEATURE_EXTRACTION",
            "r": lora.rank,
            "lora_alpha": lora.alpha,
            "lora_dropout": lora.dropout,
            "target_modules": modules,
            "bias": "none",
            "base_model_name_or_path": None,
            "inference_mode": True,
        }
        save_tensors(
            folder / "adapter_model.safetensors", {f"{_PEFT}{name}": value for name, value in self.state_dict().items()}
        )
        write_atomically(folder / "adapter_config.json", json.dumps(about, indent=1).encode())
        write_atomically(folder / "fedcxr.json", json.dumps({"base_sha256": base_hash}).encode())

    @torch.no_grad()
    def read(self, folder: Path, lora: Lora, base_hash: str) -> None:
        """Take the tensors of a peft adapter folder.

        Raises:
            ConfigError: no adapter there, of another rank, scale or layers, or of another base.
        """
        about = _read_about(folder)
        for key, wanted in (("r", lora.rank), ("lora_alpha", lora.alpha)):
            if about.get(key) != wanted:
                name = {"r": "rank", "lora_alpha": "alpha"}[key]
                raise ConfigError(f"{folder}: an adapter of {name} {about.get(key)}, lora.{name} is {wanted}")
        for key in ("use_dora", "use_rslora", "fan_in_fan_out", "modules_to_save", "rank_pattern", "alpha_pattern"):
            if about.get(key):
                raise ConfigError(f"{folder}: {key} is set; only plain LoRA can be read")
        belongs = about.get("base_sha256")
        if belongs and belongs != base_hash:
            raise ConfigError(f"{folder}: the adapter of another base ({belongs[:12]}), this one is {base_hash[:12]}")
        try:
            stored = load_tensors(folder / "adapter_model.safetensors")
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self._take(folder, {name.removeprefix(_PEFT): value for name, value in stored.items()})

    def _take(self, folder: Path, stored: dict[str, Tensor]) -> None:
        own = self.state_dict()
        missing, extra = sorted(own.keys() - stored.keys()), sorted(stored.keys() - own.keys())
        if missing or extra:
            raise ConfigError(
                f"{folder}: the adapter's layers are not lora.targets: missing {', '.join(missing[:_SHOWN]) or 'none'}; "
                f"unexpected {', '.join(extra[:_SHOWN]) or 'none'}"
            )
        for name, value in own.items():
            if stored[name].shape != value.shape:
                raise ConfigError(
                    f"{folder}: {name} is {tuple(stored[name].shape)}, this base needs {tuple(value.shape)}; "
                    f"the adapter is of another base"
                )
        for name, value in own.items():
            value.copy_(stored[name])


def _read_about(folder: Path) -> dict[str, Any]:
    about: dict[str, Any] = {}
    for name in ("adapter_config.json", "fedcxr.json"):
        path = folder / name
        if name == "fedcxr.json" and not path.exists():
            continue
        try:
            about |= json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{folder}: no {name}; give the folder of a peft adapter") from None
        except (OSError, ValueError, TypeError):
            raise ConfigError(f"{path}: not valid JSON") from None
    return about


def draw(seed: int, phase: str, number: int, name: str, shape: tuple[int, int]) -> Tensor:
    """A fresh A [r,I] called ``name``, uniform as LoRA starts (bound 1/sqrt(I)): the same wherever it is drawn. Row i does
    not depend on r."""
    bound = shape[1] ** -0.5
    return torch.empty(shape).uniform_(-bound, bound, generator=stream(seed, "adapter", phase, number, name))


def base_state(trunk: nn.Module) -> dict[str, Tensor]:
    """State of the trunk without its adapters, under the names it has without them."""
    return {
        name.replace(".base_layer.", "."): value
        for name, value in trunk.state_dict().items()
        if ".lora_A." not in name and ".lora_B." not in name
    }


@torch.no_grad()
def merged_state(trunk: nn.Module) -> dict[str, Tensor]:
    """State of the trunk with its adapters added in, under the names it has without them; nothing is changed."""
    state = base_state(trunk)
    for path, layer in _layers(trunk):
        weight = state[f"{path}.weight"]
        state[f"{path}.weight"] = (weight.float() + layer.get_delta_weight(NAME).float()).to(weight.dtype)
    return state
