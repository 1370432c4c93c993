"""Masked next-token prediction (LLM2Vec, BehnamGhader et al., arXiv 2404.05961): a decoder learns to use both sides.

Some tokens of a report are hidden, and each is predicted from the state of the token before it, which is where a
decoder keeps its next token; a BERT predicts it in its own place. Cross-entropy, mean over all hidden tokens of the
batch. The language head stays as it is; LoRA on the trunk learns.

    objective: {name: mntp, mask: 0.2}

Each report is a sequence of its own: texts are not strung together, as in the published setting on an encyclopaedia,
because reports of several patients would meet in one sequence. Scores are computed for the hidden tokens alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ConfigError, config
from models.objectives import Schedule
from models.objectives._reports import OnReports, TextPart
from models.studies.views import Section, TextBatch
from models.text.batching import buckets
from models.text.tokens import TokenBatch


@config
class Config:
    """mask: chance of each token of the report to be hidden. Of the hidden ones ``masked`` become the mask token,
    ``random`` any token, and the rest stand as they are. (0.2, 0.8, 0.1 as published for Llama; 0.8, 1, 0 for Mistral.)
    """

    name: Literal["mntp"] = "mntp"
    trains: tuple[TextPart, ...] = ("text_lora",)
    sections: tuple[Section, ...] = ("findings", "impression")
    mask: float = 0.2
    masked: float = 0.8
    random: float = 0.1
    findings: ClassVar[tuple[str, ...]] = ()

    def check(self) -> None:
        if not 0 < self.mask < 1:
            raise ConfigError(f"mask {self.mask}: must be in (0, 1)")
        if min(self.masked, self.random) < 0 or self.masked + self.random > 1:
            raise ConfigError(f"masked {self.masked} and random {self.random}: shares whose sum is at most 1")
        if not self.trains or not set(self.trains) <= {"text", "text_lora"}:
            raise ConfigError(f"trains {list(self.trains)}: 'text_lora' or 'text'; pooling takes no part in this loss")
        if not self.sections:
            raise ConfigError("sections: empty; 'findings', 'impression', or both")

    def build(self) -> Mntp:
        return Mntp(self)


def hide(batch: TokenBatch, cfg: Config, mask_id: int, vocabulary: int, shift: int) -> tuple[Tensor, Tensor]:
    """Token numbers [B,T] with some hidden, and which [B,T]. At least one token of the batch is hidden.

    Draws from torch's global generator, on the CPU. With ``shift`` the first token of a row is never hidden: nothing
    stands before it.
    """
    candidates = batch.span.clone()
    if shift:
        candidates[:, 0] = False
    if not candidates.any():
        return batch.ids, torch.zeros_like(candidates)
    chosen = candidates & (torch.rand(batch.ids.shape) < cfg.mask)
    if not chosen.any():
        one = int(torch.randint(int(candidates.sum()), ()))
        chosen[tuple(candidates.nonzero()[one])] = True
    fate = torch.rand(batch.ids.shape)
    ids = torch.where(chosen & (fate < cfg.masked), mask_id, batch.ids)
    other = torch.randint(vocabulary, batch.ids.shape)
    return torch.where(chosen & (fate >= cfg.masked) & (fate < cfg.masked + cfg.random), other, ids), chosen


class Mntp(OnReports):
    """The objective; reads ``Reports``, trains the trunk or its adapters."""

    no_privacy: ClassVar[str] = (
        "a report's gradient is its own and can be bounded (with adapters or the trunk, not latent pooling), but no DP "
        "engine is built yet"
    )

    def check_model(self, model: nn.Module) -> None:
        """Raises ConfigError for a model that cannot predict tokens."""
        super().check_model(model)
        if model.text.head is None:
            raise ConfigError("objective 'mntp' and model.text.language_head false: it predicts tokens; set it to true")
        if model.text.tokens.mask_id is None:
            raise ConfigError(
                "objective 'mntp': the tokenizer has no mask token, and '_' is not one token of it either"
            )

    def step(self, model: nn.Module, batch: TextBatch, schedule: Schedule) -> Iterator[dict[str, Tensor]]:
        """The loss in parts of texts of like length; together the mean over all hidden tokens."""
        text = model.text
        rows = text.tokens.rows(batch.texts)
        parts = []
        for group in buckets([len(row) for row in rows], text.cfg.batch_tokens):
            tokens = text.tokens.collate([rows[i] for i in group])
            ids, chosen = hide(tokens, self.cfg, text.tokens.mask_id, len(text.tokens), text.head.shift)
            parts.append((replace(tokens, ids=ids), tokens.ids[chosen], chosen))
        hidden = sum(len(truth) for _, truth, _ in parts)
        for tokens, truth, chosen in parts:
            states = text.states(tokens.to(text.device))
            # With a shift the state of token i-1 tells token i: the choice moves one to the left.
            asked = chosen.roll(-text.head.shift, dims=1).to(text.device)
            scores = text.head(states[asked])
            yield {"mntp_loss": F.cross_entropy(scores, truth.to(text.device), reduction="sum") / max(hidden, 1)}
