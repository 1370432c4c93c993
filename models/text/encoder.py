"""The text tower: reports in, vectors out.

Shape letters: B texts, T tokens, D width of the trunk, W width of the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.checkpoint import hash_tensors
from models.checkpoint import save as save_tensors
from models.config import ConfigError, config_hash, to_plain
from models.text.adapters import adapt, base_state, merged_state
from models.text.batching import buckets
from models.text.config import TextConfig
from models.text.folding import Fold, Foldable, heads
from models.text.layouts import EXTRA_FILE, CxrBertProjection, Extras
from models.text.loading import _quiet, load_backbone
from models.text.pooling import LatentAttention, first_pool, last_pool, mean_pool
from models.text.tokens import Row, TokenBatch, Tokens

_NOT_OF_THE_VECTOR = ("source", "download", "revision", "adapter", "checkpoint", "language_head", "batch_tokens")
"""Keys of the config that do not change a text's vector, or that do it through the weights."""


class TextEncoder(nn.Module):
    """Any Hugging Face decoder, made bidirectional, or BERT, with pooling and, if asked for, LoRA and a projection.

    Components (see ``components``): ``text`` is the trunk where there is no LoRA, ``text_lora`` the adapters where there
    is; ``text_pool`` is latent pooling; ``text_proj`` the projection. A trunk under LoRA is no component: it never
    trains, travels or is saved with a round; ``base_hash`` says which it is.

    Attributes:
        width: W. tokens: the tokenizer. head: the language head, or None.
    """

    def __init__(self, cfg: TextConfig) -> None:
        super().__init__()
        self.cfg = cfg
        backbone = load_backbone(cfg)
        self.trunk = backbone.trunk
        self.head = backbone.head
        self.tokens = Tokens(backbone.tokenizer, cfg.max_tokens)
        self._base_hash: str | None = None
        if not cfg.lora:
            self._base_hash = self.base_hash  # before it trains; under LoRA it never does, so whenever asked
        if cfg.weights_sha256 and cfg.weights_sha256 != self.base_hash:
            raise ConfigError(
                f"weights_sha256 {cfg.weights_sha256[:12]}...: the trunk here is {self.base_hash[:12]}..."
            )
        depth = self.trunk.config.hidden_size
        self.pool = _latent(cfg, depth) if cfg.pooling == "latent" else None
        self.projection = _projection(cfg, depth, backbone.extras)
        self._take(backbone.extras)
        # In a tuple, which is no submodule: its tensors are the trunk's.
        self._adapters = (adapt(self.trunk, cfg.lora),) if cfg.lora else ()
        self._folded: Foldable | None = None
        if cfg.adapter:
            self._adapters[0].read(Path(cfg.adapter), cfg.lora, self.base_hash)
        if cfg.checkpoint:
            _enable_checkpoints(self.trunk)
        self.width = _out(self.projection, depth)

    # -- as part of a model --------------------------------------------------------------------------------------------

    def components(self) -> dict[str, nn.Module]:
        """What can train and travel, by name."""
        found: dict[str, nn.Module] = {"text_lora": self._adapters[0]} if self._adapters else {"text": self.trunk}
        if self.pool is not None:
            found["text_pool"] = self.pool
        if self.projection is not None:
            found["text_proj"] = self.projection
        return found

    @property
    def base_hash(self) -> str:
        """SHA-256 of the trunk as it was built, adapters aside."""
        if self._base_hash is None:
            self._base_hash = hash_tensors(base_state(self.trunk))
        return self._base_hash

    @property
    def base_head(self) -> str:
        """Which frozen weights are under the adapters now: ``base_hash``, or the head of the chain of folds."""
        return self.folded.heads[-1] if self._adapters and self.folded.heads else self.base_hash

    @property
    def folded(self) -> Foldable:
        """The weights under the adapters, into which may be folded.

        Raises:
            ValueError: a tower without adapters.
        """
        if self._folded is None:
            if not self._adapters:
                raise ValueError("this tower has no adapters; set lora")
            self.base_hash  # noqa: B018  (before anything is folded in)
            self._folded = Foldable(self._adapters[0].weights())
        return self._folded

    def rebase(self, folds: Sequence[Fold]) -> None:
        """Make the frozen weights those as built with ``folds`` in, whatever is in them now."""
        names = heads(self.base_hash, folds)
        for number in range(self.folded.shared(names), len(folds)):
            self.folded.add(folds[number], names[number])

    def vector_hash(self) -> dict[str, str]:
        """What a text's vector depends on, as it is now: SHA-256 of ``weights``, ``tokenizer`` and ``config``."""
        cfg = {name: value for name, value in to_plain(self.cfg).items() if name not in _NOT_OF_THE_VECTOR}
        return {
            "weights": hash_tensors({n: v for n, v in self.state_dict().items() if not n.startswith("head.")}),
            "tokenizer": self.tokens.digest(),
            "config": config_hash(cfg),
        }

    # -- tokens to vectors ---------------------------------------------------------------------------------------------

    def states(self, batch: TokenBatch) -> Tensor:
        """States of the trunk's last layer, [B,T,D]."""
        # Without padding no mask is needed, and the faster attention kernel is taken.
        mask = batch.mask.long() if batch.padded else None
        with self._checkpointing():
            return self.trunk(input_ids=batch.ids, attention_mask=mask).last_hidden_state

    def forward(self, batch: TokenBatch) -> Tensor:
        """Vectors [B,W] float32, not normalised."""
        vectors = self._pool(self.states(batch), batch)
        return vectors if self.projection is None else self.projection(vectors).float()

    def _pool(self, states: Tensor, batch: TokenBatch) -> Tensor:
        if self.cfg.pooling == "first":
            return first_pool(states, batch.mask)
        if self.cfg.pooling == "last":
            return last_pool(states, batch.mask)
        span = batch.span if self.cfg.pooled == "text" else batch.mask
        return mean_pool(states, span) if self.pool is None else self.pool(states, span)

    @contextmanager
    def _checkpointing(self) -> Iterator[None]:
        """Blocks checkpoint only in training mode. Switched on by itself: their dropout layers keep their own mode."""
        if not (self.cfg.checkpoint and torch.is_grad_enabled()):
            yield
            return
        blocks = [m for m in self.trunk.modules() if getattr(m, "gradient_checkpointing", False)]
        was = [block.training for block in blocks]
        try:
            for block in blocks:
                block.training = True
            yield
        finally:
            for block, training in zip(blocks, was):
                block.training = training

    def drop_attention(self, rate: float) -> None:
        """Drop attention weights at ``rate`` in the forward passes from here to the next ``eval()``.

        It outlives the forward pass, as checkpointed blocks run again in the backward pass.

        Raises:
            ConfigError: attention layers of a kind whose dropout is not known.
        """
        found = 0
        for module in self.trunk.modules():
            inner = getattr(module, "dropout", None)
            if isinstance(getattr(module, "attention_dropout", None), float):
                module.attention_dropout, module.training, found = rate, True, found + 1
            elif type(module).__name__.endswith("SelfAttention") and isinstance(inner, nn.Dropout):
                inner.p, module.training, found = rate, True, found + 1
                inner.training = True
        if not found:
            raise ConfigError(f"{type(self.trunk).__name__}: its attention layers have no dropout that could be set")

    # -- texts to vectors ----------------------------------------------------------------------------------------------

    def embed(self, texts: Sequence[str], instructions: str | Sequence[str] | None = None) -> Tensor:
        """Vectors [N,W] float32 on the tower's device, in the order given, with gradients where they are enabled.

        Raises:
            EmptyText: texts without a token.
        """
        return self.embed_rows(self.tokens.rows(texts, instructions))

    def embed_rows(self, rows: Sequence[Row]) -> Tensor:
        """The same for texts that are tokenized."""
        if not rows:
            return torch.zeros(0, self.width, device=self.device)
        groups = buckets([len(row) for row in rows], self.cfg.batch_tokens)
        parts = [self(self.tokens.collate([rows[i] for i in group]).to(self.device)) for group in groups]
        order = torch.cat([torch.from_numpy(group) for group in groups])
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order))
        return torch.cat(parts)[back.to(self.device)]

    @torch.no_grad()
    def encode(
        self,
        texts: Sequence[str],
        instructions: str | Sequence[str] | None = None,
        normalize: bool = False,
        precision: str = "float32",
    ) -> Tensor:
        """Vectors [N,W] float32 on the CPU, in the order given, without dropout. Equal texts are computed once.

        Args:
            precision: ``bfloat16`` computes under autocast, about twice as fast, to three digits.
        """
        rows = self.tokens.rows(texts, instructions)
        first: dict[Any, int] = {}
        where = [first.setdefault(row.key, len(first)) for row in rows]
        unique = [row for row, n in zip(rows, _firsts(where)) if n]
        cast = torch.autocast(self.device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
        with _evaluating(self), cast:
            vectors = self.embed_rows(unique).float().cpu()
        vectors = vectors[torch.tensor(where, dtype=torch.long)]
        return F.normalize(vectors, dim=-1) if normalize else vectors

    @property
    def device(self) -> torch.device:
        return next(self.trunk.parameters()).device

    # -- to and from files ---------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """A plain Hugging Face folder, adapters merged, that ``AutoModel`` and ``TextConfig(source=...)`` load; pooling
        and projection lie beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: value.contiguous() for name, value in merged_state(self.trunk).items()}
        with _quiet():
            self.trunk.save_pretrained(folder, state_dict=state, safe_serialization=True)
        self.tokens.save(folder)
        parts = {"pooling": self.pool, "projection": self.projection}
        extra = {f"{n}.{k}": v for n, part in parts.items() if part is not None for k, v in part.state_dict().items()}
        if extra:
            save_tensors(folder / EXTRA_FILE, extra)

    def save_adapter(self, folder: Path) -> None:
        """The adapters alone, as a peft folder."""
        if not self._adapters:
            raise ValueError("this tower has no adapters; set lora")
        self._adapters[0].save(folder, self.cfg.lora, self.base_head)

    def _take(self, extras: Extras) -> None:
        for name, part in (("pooling", self.pool), ("projection", self.projection)):
            stored = extras.get(name)
            if stored is None or (part is None and name == "pooling"):
                continue  # released scripts use mean pooling with these weights, too
            if part is None:
                raise ConfigError(f"source {self.cfg.source!r} has a projection; set project to its width")
            own = part.state_dict()
            odd = [k for k in sorted(own.keys() ^ stored.keys())]
            odd += [k for k in sorted(own.keys() & stored.keys()) if own[k].shape != stored[k].shape]
            if odd:
                raise ConfigError(
                    f"source {self.cfg.source!r}: the {name} there does not fit: {odd[0]} "
                    f"({_shape(stored.get(odd[0]))} there, {_shape(own.get(odd[0]))} here)"
                )
            part.load_state_dict(stored)


def _latent(cfg: TextConfig, width: int) -> LatentAttention:
    if width % cfg.latent_heads:
        raise ConfigError(f"latent_heads {cfg.latent_heads} and the trunk's width {width}: the heads must divide it")
    return LatentAttention(width, cfg.latents, cfg.latent_heads)


def _enable_checkpoints(trunk: Any) -> None:
    # The name changed within version 5 of transformers.
    enable = getattr(trunk, "activation_checkpointing_enable", None) or trunk.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _shape(tensor: Tensor | None) -> str:
    return "none" if tensor is None else str(tuple(tensor.shape))


def _projection(cfg: TextConfig, width: int, extras: Extras) -> nn.Module | None:
    if cfg.layout == "cxr-bert":
        return CxrBertProjection(width, len(extras["projection"]["dense_to_hidden.bias"]))
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, cfg.project)) if cfg.project else None


def _out(projection: nn.Module | None, width: int) -> int:
    if projection is None:
        return width
    return [m for m in projection.modules() if isinstance(m, nn.Linear)][-1].out_features


def _firsts(numbers: Sequence[int]) -> Iterator[bool]:
    """Whether each number is the first of its kind; they count up as they appear."""
    seen = 0
    for n in numbers:
        yield n == seen
        seen = max(seen, n + 1)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    was = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in was:
            part.training = training
