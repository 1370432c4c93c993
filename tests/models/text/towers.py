"""Small towers for the tests, each with a tokenizer of its own."""

from __future__ import annotations

from typing import Any

import torch

from models.config import build
from models.text.config import TextConfig
from models.text.encoder import TextEncoder

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3", "modernbert", "bert")
REPORTS = (
    "No pleural effusion.",
    "The heart is enlarged, and there is a large right pleural effusion with compressive atelectasis.",
    "Clear lungs.",
    "PICC tip in the SVC; no pneumothorax. Stable small left effusion, unchanged since the prior film.",
    "Normal.",
    "Cardiomegaly without edema.",
    "RULF GGO, f/u CT.",
)


def config(**values: Any) -> TextConfig:
    """A Llama of two layers, 32 wide, unless told otherwise."""
    values = {"max_tokens": 128, **values}
    if "source" not in values:
        scratch = {"width": 32, "heads": 4, "depth": 2, "vocabulary": 1200, "positions": 512}
        values["scratch"] = {**scratch, **values.get("scratch", {})}
    return build(TextConfig, values)


def make(seed: int = 0, **values: Any) -> TextEncoder:
    """The tower of ``config(**values)``, in evaluation mode."""
    torch.manual_seed(seed)
    return config(**values).build().eval()


def stir(encoder: TextEncoder, seed: int = 0, scale: float = 0.05) -> None:
    """Move every adapter weight, so that the adapters do something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in encoder.components()["text_lora"].parameters():
            value.add_(torch.randn(value.shape, generator=generator), alpha=scale)
