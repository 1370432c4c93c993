"""The trunk of a text tower: from a folder, from the hub if allowed, or fresh; bidirectional and checked to be.

Only safetensors are read and only classes of the transformers library are built: code that comes with a model is never
run, a pickled file never opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from models.config import ConfigError
from models.text.config import TextConfig
from models.text.layouts import LAYOUTS, Extras, read_config
from models.text.probe import check_bidirectional
from models.text.scratch import make_config, make_tokenizer

LIBRARY = "FEDCXR_MODELS"
"""Environment variable: the folder below which a ``source`` may be named shortly."""

_WANTED = ["*.json", "*.safetensors", "*.model", "vocab.txt", "merges.txt"]
_SHOWN = 4


class LanguageHead(nn.Module):
    """From states to token scores, the layers of the language model behind its trunk. ``shift`` is 1 where token i is
    read off the state of i-1 (decoders), 0 where off its own (BERTs)."""

    def __init__(self, model: nn.Module, causal: bool) -> None:
        super().__init__()
        self.shift = int(causal)
        self.cap = getattr(model.config, "final_logit_softcapping", None)
        if causal:
            self.layers = nn.Sequential(model.get_output_embeddings())
        elif hasattr(model, "cls"):
            self.layers = nn.Sequential(model.cls)
        else:
            self.layers = nn.Sequential(model.head, model.decoder)

    def forward(self, states: Tensor) -> Tensor:
        """[..., D] to float32 [..., V]."""
        scores = self.layers(states).float()
        return torch.tanh(scores / self.cap) * self.cap if self.cap else scores


@dataclass
class Backbone:
    """What loading gives: the trunk, its tokenizer, the language head if asked for, and the tensors that the layout has
    beside them."""

    trunk: nn.Module
    tokenizer: Any
    head: LanguageHead | None
    extras: Extras


def load_backbone(cfg: TextConfig) -> Backbone:
    """Build or read the trunk that ``cfg`` names.

    Raises:
        ConfigError: it is not there, not readable, not whole, or not bidirectional.
    """
    if cfg.scratch is not None:
        tokenizer = make_tokenizer(cfg.scratch)
        about = make_config(cfg.scratch, tokenizer)
        model, extras = _fresh(cfg, _bidirectional(about)), {}
    else:
        folder = find_folder(cfg)
        about = _bidirectional(read_config(folder, cfg.layout))
        tokenizer = _read_tokenizer(folder, cfg.layout)
        model, extras = _read(cfg, folder, about)
    trunk = model.base_model if cfg.language_head else model
    head = LanguageHead(model, _is_decoder(about)) if cfg.language_head else None
    _check_sizes(cfg, about, tokenizer)
    check_bidirectional(trunk, about.vocab_size)
    return Backbone(trunk.eval(), tokenizer, head, extras)


def find_folder(cfg: TextConfig) -> Path:
    """The folder of ``cfg.source``, fetched first if it is a hub name and ``download`` allows it."""
    folder = Path(cfg.source)
    library = os.environ.get(LIBRARY)
    for place in (folder, *([Path(library) / folder] if library else [])):
        if place.is_dir():
            return place
    if not cfg.download:
        raise ConfigError(
            f"source {cfg.source!r}: no such folder here{f' nor below {LIBRARY}' if library else ''}; give a folder, "
            f"or set download: true if this is a name on the hub and this machine may fetch it"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(cfg.source, revision=cfg.revision, allow_patterns=_WANTED))
    except Exception as error:  # the hub's client has many classes for no network, no such name, no right
        raise ConfigError(f"source {cfg.source!r}: the hub did not give it ({type(error).__name__})") from None


def stored_names(folder: Path) -> list[str]:
    """Names of all tensors in the folder's safetensors, sorted; nothing is loaded.

    Raises:
        ConfigError: there is none, or one is broken.
    """
    names: list[str] = []
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                names += file.keys()
        except Exception as error:  # the reader raises its own unnamed class
            raise ConfigError(
                f"{path.name} of {folder}: not a whole safetensors file ({type(error).__name__})"
            ) from None
    return sorted(names)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the trunk: those of the index where there is one.

    Raises:
        ConfigError: none, or one of the index is missing; the text says so of pickled weights, which are never read.
    """
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            files = sorted({folder / Path(name).name for name in json.loads(index.read_text())["weight_map"].values()})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(f"{index}: not a valid index of weights") from None
        missing = [path.name for path in files if not path.exists()]
        if missing:
            raise ConfigError(f"{folder}: {missing[0]} is missing, which the index names; copy the folder again")
        return files
    if (folder / "model.safetensors").exists():
        return [folder / "model.safetensors"]
    if (folder / "adapter_config.json").exists():
        raise ConfigError(f"{folder}: holds an adapter, not a model; give its base as source and this as adapter")
    pickled = [path.name for path in sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt"))]
    if pickled:
        raise ConfigError(
            f"{folder}: only {pickled[0]}, which is pickled and never read here; convert it to safetensors elsewhere"
        )
    raise ConfigError(f"{folder}: no model.safetensors")


def _bidirectional(about: Any) -> Any:
    """The one switch that works for every family and kernel (transformers >= 5.2)."""
    if getattr(about, "is_encoder_decoder", False):
        raise ConfigError(f"model type {about.model_type!r}: an encoder with a decoder; give a decoder or a BERT")
    if not hasattr(about, "vocab_size"):
        raise ConfigError(f"model type {about.model_type!r}: not a plain language model; give a decoder or a BERT")
    about.is_causal = False
    about.use_cache = False
    return about


def _is_decoder(about: Any) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return about.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def _kind(cfg: TextConfig, about: Any) -> tuple[Any, dict[str, Any]]:
    """The Auto class, and what its constructor needs."""
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

    options: dict[str, Any] = {"dtype": getattr(torch, cfg.dtype), "trust_remote_code": False}
    if cfg.attention != "auto":
        options["attn_implementation"] = cfg.attention
    if cfg.language_head:
        return (AutoModelForCausalLM if _is_decoder(about) else AutoModelForMaskedLM), options
    if about.model_type == "bert":
        options["add_pooling_layer"] = False  # it is not used, and many checkpoints lack it
    return AutoModel, options


def _fresh(cfg: TextConfig, about: Any) -> nn.Module:
    auto, options = _kind(cfg, about)
    try:
        return auto.from_config(about, **options)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"attention {cfg.attention!r}: {_first_line(error)}") from None


def _read(cfg: TextConfig, folder: Path, about: Any) -> tuple[nn.Module, Extras]:
    stored_names(folder)  # says what is wrong with the files before transformers, whose text is longer
    auto, options = _kind(cfg, about)
    try:
        with _quiet():
            model, info = auto.from_pretrained(
                folder, config=about, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
            )
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        raise ConfigError(f"{folder}: cannot be read as {about.model_type!r}: {_first_line(error)}") from None
    return model, _check_names(cfg, folder, info)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's bars and its table of names, which ``_check_names`` judges."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _check_names(cfg: TextConfig, folder: Path, info: Any) -> Extras:
    """Nothing missing, and nothing unexpected but what the layout explains; the tensors that it has beside the trunk."""
    layout = LAYOUTS[cfg.layout]
    missing = sorted(info["missing_keys"])
    unexpected = sorted(name for name in info["unexpected_keys"] if not layout.explains(name))
    if missing or unexpected:
        hint = layout.hint(missing, unexpected)
        raise ConfigError(
            f"{folder}: the weights are not those of layout {cfg.layout!r}: missing {_list(missing)}; "
            f"unexpected {_list(unexpected)}{'; ' + hint if hint else ''}"
        )
    return layout.extras(folder, weight_files(folder))


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "none"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__


def _read_tokenizer(folder: Path, layout: str) -> Any:
    from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        if layout == "cxr-bert":  # its own class lies in code that comes with the model; it is a plain BERT's
            return BertTokenizer.from_pretrained(folder, **options)
        try:
            return AutoTokenizer.from_pretrained(folder, **options)
        except (ValueError, OSError):
            if not (folder / "tokenizer.json").exists():
                raise
            return PreTrainedTokenizerFast.from_pretrained(folder, **options)
    except Exception as error:  # a broken tokenizer.json raises the bare Exception of its Rust reader
        raise ConfigError(f"{folder}: no tokenizer can be read: {_first_line(error)}") from None


def _check_sizes(cfg: TextConfig, about: Any, tokenizer: Any) -> None:
    if len(tokenizer) > about.vocab_size:
        raise ConfigError(f"the tokenizer has {len(tokenizer)} tokens and the model {about.vocab_size}: not a pair")
    positions = getattr(about, "max_position_embeddings", None)
    if positions and cfg.max_tokens > positions:
        raise ConfigError(f"max_tokens {cfg.max_tokens} and the model's {positions} positions: lower max_tokens")
