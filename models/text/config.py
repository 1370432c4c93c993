"""What a text tower is made of. Importing this imports neither transformers nor peft."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from models.config import ConfigError, config

if TYPE_CHECKING:
    from models.text.encoder import TextEncoder

Pooling = Literal["mean", "last", "first", "latent"]
Layout = Literal["huggingface", "llm2vec4cxr", "llm2clip", "cxr-bert"]
Family = Literal["llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3", "modernbert", "bert"]


@config
class Scratch:
    """A small model with random weights and a tokenizer made of this program's own word lists: nothing to download.

    hidden: width of the feed-forward layers; 0 for four times the width. kv_heads: key and value heads of decoders;
    0 for as many as heads. window: how far a token sees in the families with sliding attention; 0 leaves the family's.
    vocabulary: most tokens the tokenizer may have.
    """

    family: Family = "llama"
    width: int = 64
    depth: int = 2
    heads: int = 4
    kv_heads: int = 0
    hidden: int = 0
    window: int = 0
    vocabulary: int = 4096
    positions: int = 512

    def check(self) -> None:
        for name in ("width", "depth", "heads", "positions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)}: at least 1")
        for name in ("kv_heads", "hidden", "window"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} {getattr(self, name)}: must not be negative")
        if self.width % self.heads:
            raise ConfigError(f"width {self.width} and heads {self.heads}: the heads must divide the width")
        if self.kv_heads and self.heads % self.kv_heads:
            raise ConfigError(f"heads {self.heads} and kv_heads {self.kv_heads}: kv_heads must divide heads")
        if (self.width // self.heads) % 2 and self.family != "bert":
            raise ConfigError(f"width {self.width} and heads {self.heads}: rotary positions need an even width a head")
        if self.vocabulary < 300:
            raise ConfigError(f"vocabulary {self.vocabulary}: at least 300, which is all bytes and the special tokens")


@config
class Lora:
    """Low-rank adapters (Hu et al., arXiv 2106.09685) on linear layers of the trunk; the trunk itself is then frozen.

    targets: ``all`` linear layers of the blocks (in Llama q, k, v, o, gate, up, down), those of ``attention`` (q, k, v,
    o), or names such as ``q_proj``. alpha: the update is scaled by alpha / rank.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.05
    targets: Literal["all", "attention"] | tuple[str, ...] = "all"

    def check(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"rank {self.rank}: at least 1")
        if not self.alpha > 0:
            raise ConfigError(f"alpha {self.alpha}: must be positive")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout {self.dropout}: must be in [0, 1)")
        if not self.targets:
            raise ConfigError("targets: empty; 'all', 'attention', or names of linear layers")


@config
class TextConfig:
    """A text tower. Give ``source`` or ``scratch``.

    source: a folder, a folder's name below the one that the environment variable FEDCXR_MODELS names (so that one run
    fits machines that keep their models in different places), or a name on the hub.
    """

    source: str | None = None
    scratch: Scratch | None = None
    download: bool = False
    """Whether a ``source`` that is not on this machine may be fetched from the hub."""
    revision: str | None = None
    """Commit or tag on the hub."""
    layout: Layout = "huggingface"
    """Whose names the weights have. ``llm2vec4cxr`` brings latent pooling, ``cxr-bert`` a projection."""
    weights_sha256: str | None = None
    """What ``TextEncoder.base_hash`` must be; other weights are refused."""
    adapter: str | None = None
    """Folder of a peft adapter to start ``lora`` from."""
    lora: Lora | None = None

    pooling: Pooling = "mean"
    """``first`` is the class token of a BERT, ``last`` the last token, ``latent`` attention over learnt latents."""
    pooled: Literal["text", "everything"] = "text"
    """What ``mean`` and ``latent`` run over: the report's own tokens, or all (special tokens and instruction too)."""
    latents: int = 512
    latent_heads: int = 8
    project: int = 0
    """Width of a last LayerNorm and linear layer; 0 for none."""

    max_tokens: int = 512
    """Longer texts lose their end."""
    attention: Literal["auto", "eager", "sdpa"] = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the trunk. Adapters, pooling and projection are float32."""
    checkpoint: bool = False
    """Keep the activations of one block at a time in training, and compute them twice."""
    language_head: bool = False
    """Keep the layer that predicts tokens, which ``mntp`` needs."""
    batch_tokens: int = 4096
    """Most tokens, padding included, in one forward pass of many texts."""

    def check(self) -> None:
        given = [name for name in ("source", "scratch") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ConfigError(
                f"source and scratch: give exactly one of the two; given: {', '.join(given) or 'neither'}"
            )
        for name in ("latents", "latent_heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)}: at least 1")
        if self.project < 0:
            raise ConfigError(f"project {self.project}: must not be negative")
        if self.max_tokens < 4:
            raise ConfigError(f"max_tokens {self.max_tokens}: at least 4")
        if self.batch_tokens < self.max_tokens:
            raise ConfigError(
                f"batch_tokens {self.batch_tokens} and max_tokens {self.max_tokens}: one text must fit into a batch"
            )
        if self.adapter is not None and self.lora is None:
            raise ConfigError("adapter and no lora: say the adapter's rank, alpha and targets in lora")
        if self.scratch is not None:
            self._check_scratch(self.scratch)
        if self.layout == "cxr-bert" and self.project:
            raise ConfigError(f"layout 'cxr-bert' and project {self.project}: that layout brings its own projection")

    def _check_scratch(self, scratch: Scratch) -> None:
        for name, plain in (("download", False), ("revision", None), ("layout", "huggingface"), ("adapter", None)):
            if getattr(self, name) != plain:
                raise ConfigError(f"scratch and {name} {getattr(self, name)!r}: that key belongs to source")
        if self.max_tokens > scratch.positions:
            raise ConfigError(
                f"max_tokens {self.max_tokens} and scratch.positions {scratch.positions}: there are fewer positions"
            )

    def build(self) -> TextEncoder:
        """Raises ConfigError for a model that cannot be read, or that is not what this says."""
        from models.text.encoder import TextEncoder  # transformers takes seconds to import

        return TextEncoder(self)
