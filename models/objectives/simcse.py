"""Unsupervised SimCSE (Gao et al., arXiv 2104.08821) as LLM2Vec uses it: each report twice through attention dropout.

The two vectors of a report belong together, those of other reports of the batch do not. Equal reports are one report:
a copy is no negative. One direction, cosines times ``scale`` (20, a temperature of 0.05).

    objective: {name: simcse, dropout: 0.3}
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from models.config import ConfigError, config
from models.objectives import Schedule
from models.objectives._contrast import contrast, false_negatives
from models.objectives._reports import MIXES_REPORTS, OnReports, TextPart
from models.studies.views import Section, TextBatch


@config
class Config:
    """dropout: of the attention weights, in both passes."""

    name: Literal["simcse"] = "simcse"
    trains: tuple[TextPart, ...] = ("text_lora",)
    sections: tuple[Section, ...] = ("findings", "impression")
    instruction: str = ""
    dropout: float = 0.3
    scale: float = 20.0
    findings: ClassVar[tuple[str, ...]] = ()

    def check(self) -> None:
        if not 0 < self.dropout < 1:
            raise ConfigError(f"dropout {self.dropout}: must be in (0, 1); without it both vectors are the same")
        if not self.scale > 0:
            raise ConfigError(f"scale {self.scale}: must be positive")
        if not self.trains or not self.sections:
            raise ConfigError(f"trains {list(self.trains)} and sections {list(self.sections)}: at least one of each")

    def build(self) -> SimCse:
        return SimCse(self)


class SimCse(OnReports):
    """The objective; reads ``Reports``."""

    no_privacy: ClassVar[str] = MIXES_REPORTS

    def check_model(self, model: nn.Module) -> None:
        """Raises ConfigError for a model without a text tower, or whose attention has no dropout."""
        super().check_model(model)
        model.text.drop_attention(self.cfg.dropout)
        model.text.eval()

    def instructions(self, task: str) -> tuple[str | None, str | None]:
        """Of the queries and of the documents of a held-out task: what it trains with."""
        return self.cfg.instruction, self.cfg.instruction

    def step(self, model: nn.Module, batch: TextBatch, schedule: Schedule) -> dict[str, Tensor]:
        text = model.text
        text.drop_attention(self.cfg.dropout)
        rows = text.tokens.rows(batch.texts, self.cfg.instruction)
        one, other = text.embed_rows([*rows, *rows]).chunk(2)
        excluded = false_negatives(batch.texts, batch.texts, ()).to(one.device)
        return {"simcse_loss": contrast(one, other, excluded, self.cfg.scale)}
