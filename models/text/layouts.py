"""Whose names a checkpoint's tensors have: plain Hugging Face, LLM2VEC4CXR, the LLM2CLIP base, CXR-BERT.

Published layouts (tensor names as released):

- ``llm2vec4cxr`` (lukeingawesome/llm2vec4cxr): a Llama trunk under ``model.``, latent pooling under ``latent_attn.``
- ``llm2clip`` (microsoft/LLM2CLIP-Llama-3.2-1B-Instruct-CC-Finetuned): a Llama trunk, with or without ``model.``
- ``cxr-bert`` (microsoft/BiomedVLP-CXR-BERT-specialized): a masked-language BERT under ``bert.`` and ``cls.``, and the
  projection of the class token under ``cls_projection_head.``
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from models.config import ConfigError

Extras = dict[str, dict[str, Tensor]]
"""Tensors beside the trunk, by part: ``pooling`` and ``projection``."""

EXTRA_FILE = "fedcxr.safetensors"
"""Beside a model that this program saved: ``pooling.*`` and ``projection.*``."""

_HEADS = ("lm_head.", "cls.predictions.", "cls.seq_relationship.", "head.", "decoder.", "pooler.", "bert.pooler.")
"""Layers behind the trunk that an encoder does not use."""
_RECOMPUTED = ("rotary_emb.inv_freq", "position_ids")


@dataclass(frozen=True)
class Layout:
    """parts: prefix in the file to part of the tower."""

    parts: Mapping[str, str]

    def explains(self, name: str) -> bool:
        """Whether a tensor that the trunk does not take has another place, or none by right."""
        known = (*self.parts, *_HEADS)
        return name.startswith(known) or name.removeprefix("model.").startswith(known) or name.endswith(_RECOMPUTED)

    def hint(self, missing: Sequence[str], unexpected: Sequence[str]) -> str:
        """What the odd names look like."""
        for layout, other in LAYOUTS.items():
            if other.parts and other is not self and any(name.startswith(tuple(other.parts)) for name in unexpected):
                return f"these look like layout: {layout}"
        if any("lora_" in name for name in unexpected):
            return "these are of an adapter; merge it, or give its folder as adapter"
        if any(name.startswith(("lm_head", "cls.", "decoder", "head.")) for name in missing):
            return "this checkpoint has no layer that predicts tokens; set language_head: false"
        return ""

    def extras(self, folder: Path, files: Sequence[Path]) -> Extras:
        """The tensors of the other parts, as float32."""
        parts = {**self.parts}
        if (folder / EXTRA_FILE).exists():
            files, parts = [*files, folder / EXTRA_FILE], {"pooling.": "pooling", "projection.": "projection", **parts}
        found: Extras = {}
        for path in files:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  (not a mapping)
                    for prefix, part in parts.items():
                        if name.startswith(prefix):
                            tensor = file.get_tensor(name).to(torch.float32)
                            found.setdefault(part, {})[name.removeprefix(prefix)] = tensor
        lost = sorted(set(self.parts.values()) - set(found))
        if lost:
            raise ConfigError(
                f"{folder}: no {lost[0]} tensors ({', '.join(self.parts)}*); layout 'huggingface' has none"
            )
        return found


LAYOUTS = {
    "huggingface": Layout({}),
    "llm2vec4cxr": Layout({"latent_attn.": "pooling"}),
    "llm2clip": Layout({}),
    "cxr-bert": Layout({"cls_projection_head.": "projection"}),
}


class CxrBertProjection(nn.Module):
    """The projection of CXR-BERT's class token (Boecking et al., ECCV 2022), with its released parameter names."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.dense_to_hidden = nn.Linear(width, out)
        self.LayerNorm = nn.LayerNorm(out, eps=1e-12)
        self.dense_to_output = nn.Linear(out, out)

    def forward(self, vectors_BD: Tensor) -> Tensor:
        return self.dense_to_output(self.LayerNorm(nn.functional.gelu(self.dense_to_hidden(vectors_BD))))


def read_config(folder: Path, layout: str) -> Any:
    """The Hugging Face configuration in ``folder``; a class that comes with the model is not used.

    Raises:
        ConfigError: none, or of a kind that the library does not know by itself.
    """
    from transformers import AutoConfig, BertConfig

    try:
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = about["model_type"]
    except FileNotFoundError:
        adapter = (folder / "adapter_config.json").exists()
        why = "; it holds an adapter: give its base as source and this as adapter" if adapter else ""
        raise ConfigError(f"{folder}: no config.json{why}") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{folder}/config.json: not the configuration of a model") from None
    if (kind == "cxr-bert") != (layout == "cxr-bert"):
        raise ConfigError(f"layout {layout!r} and model type {kind!r}: 'cxr-bert' goes with 'cxr-bert' only")
    if layout in ("llm2vec4cxr", "llm2clip") and kind != "llama":
        raise ConfigError(f"layout {layout!r} and model type {kind!r}: that release is a llama")
    try:
        if kind == "cxr-bert":
            about.pop("auto_map", None)
            return BertConfig.from_dict({**about, "model_type": "bert"})
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError, TypeError) as error:
        line = str(error).strip().split("\n")[0][:200]
        raise ConfigError(
            f"{folder}: model type {kind!r} cannot be used without code that comes with it: {line}"
        ) from None
