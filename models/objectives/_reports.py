"""What the objectives on reports share: no head, no weights, held-out questions, and the need of a text tower."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from models.config import ConfigError
from models.evaluation.questions import ReportQuestions
from models.objectives import PrivacyRecipe
from models.studies.store import Store
from models.studies.views import Reports, View

TextPart = Literal["text", "text_lora", "text_pool", "text_proj"]
MIXES_REPORTS = "every report is a negative of the others in its batch, so no report's gradient is its own"
"""Why a contrast within the batch has no private recipe."""


class OnReports:
    """An objective that trains parts of a text tower on a site's reports."""

    view: ClassVar[type] = Reports
    privacy: ClassVar[PrivacyRecipe | None] = None

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        self.trains = tuple(cfg.trains)

    def heads(self, width: int) -> Mapping[str, nn.Module]:
        return {}

    def check_model(self, model: nn.Module) -> None:
        """Raises ConfigError for a model without a text tower."""
        if getattr(model, "text", None) is None:
            raise ConfigError(f"objective {self.cfg.name!r} and no model.text: it reads reports; add a text tower")

    def open(self, store: Store, rows: Any) -> View:
        return Reports(store, rows, self.cfg.sections)

    def open_held_out(self, store: Store, rows: Any) -> ReportQuestions:
        return ReportQuestions(store, rows)

    def weights(self, view: Any) -> Tensor | None:
        return None
