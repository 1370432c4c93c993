"""Texts to token numbers, with the span that is pooled.

The instruction stands before the text, parted by ``"; "``. Which tokens are the text's is read off character offsets:
counting the tokens of the text by itself, as the released code does, is one off where a token spans the border.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.config import ConfigError
from models.studies.views import Batch

BETWEEN = "; "
"""Between instruction and text."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_REMEMBERED = 50_000


class EmptyText(ValueError):
    """Texts without a token to pool over; ``positions`` says which. Drop them before encoding."""

    def __init__(self, positions: Sequence[int], why: str) -> None:
        shown = ", ".join(map(str, positions[:5])) + (", ..." if len(positions) > 5 else "")
        super().__init__(f"{len(positions)} texts have no vector ({why}): at positions {shown}; leave them out")
        self.positions = tuple(positions)


@dataclass(frozen=True, slots=True)
class Row:
    """One text. ids: int32 [T], special tokens and instruction included; [start, stop) is the text itself."""

    ids: np.ndarray
    start: int
    stop: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def key(self) -> tuple[bytes, int, int]:
        """Equal for texts that have the same vector."""
        return self.ids.tobytes(), self.start, self.stop


@dataclass(frozen=True)
class TokenBatch(Batch):
    """ids: int64 [B,T]; mask: bool [B,T], no padding; span: bool [B,T], the texts' own tokens; padded: whether there is
    any padding (known without asking the device)."""

    ids: Tensor
    mask: Tensor
    span: Tensor
    padded: bool


class Tokens:
    """A tokenizer with what pooling and masking need to know of it. ``mask_id`` is None if it has no mask token."""

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ConfigError(
                f"tokenizer {type(tokenizer).__name__}: it gives no character offsets; the folder needs a tokenizer.json"
            )
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.pad_id = _first(tokenizer.pad_token_id, tokenizer.eos_token_id, 0)  # padding is masked: any number does
        self.mask_id = _mask_id(tokenizer)
        self.special_ids = frozenset(tokenizer.all_special_ids)
        self._remembered: dict[tuple[str, str], Row] = {}

    def __len__(self) -> int:
        """How many tokens there are."""
        return len(self.tokenizer)

    def digest(self) -> str:
        """SHA-256 of all that decides which numbers a text gets."""
        about = json.loads(self.tokenizer.backend_tokenizer.to_str())
        about.pop("truncation", None)  # states of the last call, not properties
        about.pop("padding", None)
        text = json.dumps([about, self.max_tokens, BETWEEN], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def rows(self, texts: Sequence[str], instructions: str | Sequence[str] | None = None) -> list[Row]:
        """Tokens of each text, at most ``max_tokens``; what is longer loses its end. Words that look like special tokens
        are words. Texts met before are not tokenized again.

        Args:
            instructions: one for all texts or one each; an empty one is none.

        Raises:
            TypeError: something that is no ``str``.
            EmptyText: texts of which no token is left.
        """
        pairs = _pairs(texts, instructions)
        new = list(dict.fromkeys(p for p in pairs if p not in self._remembered))
        found = dict(zip(new, self._tokenize(new))) if new else {}
        rows = [found[p] if p in found else self._remembered[p] for p in pairs]
        if len(self._remembered) + len(found) > _REMEMBERED:
            self._remembered.clear()
        self._remembered.update(found)
        empty = [i for i, row in enumerate(rows) if row.start >= row.stop]
        if empty:
            long = any(len(rows[i]) >= self.max_tokens for i in empty)
            raise EmptyText(empty, f"the instruction alone fills max_tokens {self.max_tokens}" if long else "empty")
        return rows

    def collate(self, rows: Sequence[Row], left: bool = False) -> TokenBatch:
        """One padded batch; padding stands on the right unless ``left``."""
        longest = max(len(row) for row in rows)
        ids = np.full((len(rows), longest), self.pad_id, dtype=np.int64)
        mask = np.zeros(ids.shape, dtype=bool)
        span = np.zeros(ids.shape, dtype=bool)
        for i, row in enumerate(rows):
            at = longest - len(row) if left else 0
            ids[i, at : at + len(row)] = row.ids
            mask[i, at : at + len(row)] = True
            span[i, at + row.start : at + row.stop] = True
        return TokenBatch(*map(torch.from_numpy, (ids, mask, span)), padded=not mask.all())

    def forget(self) -> None:
        """Drop the memory of texts met before."""
        self._remembered.clear()

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into ``folder``."""
        self.tokenizer.save_pretrained(folder)

    def _tokenize(self, pairs: list[tuple[str, str]]) -> list[Row]:
        # A lone surrogate is no Unicode text and stops the tokenizer; one character for one keeps the offsets.
        prefixes = [_SURROGATE.sub("\ufffd", p) + BETWEEN if p else "" for p, _ in pairs]
        texts = [_SURROGATE.sub("\ufffd", t) for _, t in pairs]
        coded = self.tokenizer(
            [prefix + text for prefix, text in zip(prefixes, texts)],
            truncation=True,
            max_length=self.max_tokens,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_attention_mask=False,
            split_special_tokens=True,
        )
        parts = zip(coded["input_ids"], coded["offset_mapping"], coded["special_tokens_mask"], prefixes)
        return [_row(*part) for part in parts]


def _row(ids: list[int], offsets: list[tuple[int, int]], special: list[int], prefix: str) -> Row:
    inside = [i for i, (_, end) in enumerate(offsets) if end > len(prefix) and not special[i]]
    start, stop = (inside[0], inside[-1] + 1) if inside else (0, 0)
    return Row(np.asarray(ids, dtype=np.int32), start, stop)


def _pairs(texts: Sequence[str], instructions: str | Sequence[str] | None) -> list[tuple[str, str]]:
    if isinstance(texts, str | bytes):
        raise TypeError(f"texts: a list of str is needed, got one {type(texts).__name__}")
    if instructions is None or isinstance(instructions, str):
        instructions = [instructions or ""] * len(texts)
    if len(instructions) != len(texts):
        raise ValueError(f"{len(instructions)} instructions for {len(texts)} texts: give one for all or one each")
    for kind, items in (("text", texts), ("instruction", instructions)):
        for i, item in enumerate(items):
            if not isinstance(item, str):
                raise TypeError(f"{kind} {i}: {type(item).__name__}, a str is needed")
    return list(zip(instructions, texts))


def _first(*numbers: int | None) -> int:
    return next(n for n in numbers if n is not None)


def _mask_id(tokenizer: Any) -> int | None:
    """The mask token, or, as LLM2Vec does, the underscore."""
    if tokenizer.mask_token_id is not None:
        return tokenizer.mask_token_id
    ids = tokenizer("_", add_special_tokens=False)["input_ids"]
    return ids[0] if len(ids) == 1 and ids[0] != tokenizer.unk_token_id else None
