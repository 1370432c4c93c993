"""What the student's view of a film is compared through with the teacher's: prototypes, or the films of the batch.

Shape letters: I teacher views (2), V student views, B films, D features, K prototypes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.objectives import Schedule
from models.objectives._distl_heads import Projection, PrototypeHead
from models.objectives._distl_loss import centred, contrast_loss, sinkhorn, view_loss, wide
from models.objectives._distl_ramps import teacher_temperature


class Comparison:
    """``cfg``: the configuration of the objective."""

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg


class ByPrototypes(Comparison):
    """Which prototypes a view resembles (DINO, arXiv 2104.14294)."""

    def head(self, width: int) -> nn.Module:
        cfg = self.cfg
        return PrototypeHead(
            width, cfg.prototype_hidden, cfg.bottleneck, cfg.prototypes, cfg.unit_prototypes, cfg.prototype_norm
        )

    def memory(self) -> dict[str, nn.Module]:
        """What else the site keeps."""
        return {"centre": Centre(self.cfg.prototypes)}

    def teach(self, model: nn.Module, features_ND: Tensor, schedule: Schedule) -> Tensor:
        """The teacher's targets [N,K] from its features; the centre moves."""
        cfg, logits = self.cfg, wide(model.site["teacher_prototypes"](features_ND))
        if cfg.targets == "sinkhorn":
            return sinkhorn(logits, cfg.teacher_temperature)
        centre = model.site["centre"].mean
        targets = centred(logits, centre, teacher_temperature(cfg, schedule))
        if cfg.targets == "centre":  # after it was used: the batch is not measured against itself
            centre.lerp_(logits.mean(dim=0).to(centre.dtype), 1 - cfg.centre_momentum)
        return targets

    def loss(
        self, head: nn.Module, features_VBD: Tensor, taught_IBK: Tensor, films: slice, first: int, schedule: Schedule
    ) -> Tensor:
        """Share of the student's views ``first`` and on; ``films`` are those of ``taught`` that the student saw."""
        cfg, (V, B) = self.cfg, features_VBD.shape[:2]
        logits = head(features_VBD.flatten(0, 1), frozen=schedule.progress < cfg.freeze_prototypes).view(V, B, -1)
        return view_loss(logits, taught_IBK[:, films], cfg.student_temperature, first, 2 + cfg.local_crops)


class ByFilms(Comparison):
    """Which film of the batch a view is of (MoCo v3, arXiv 2104.02057)."""

    def head(self, width: int) -> nn.Module:
        return Projection(width, self.cfg.prototype_hidden, self.cfg.bottleneck, self.cfg.prototype_norm)

    def memory(self) -> dict[str, nn.Module]:
        return {}

    def teach(self, model: nn.Module, features_ND: Tensor, schedule: Schedule) -> Tensor:
        """The teacher's unit vectors [N,bottleneck]."""
        return model.site["teacher_prototypes"](features_ND)

    def loss(
        self, head: nn.Module, features_VBD: Tensor, taught_IBD: Tensor, films: slice, first: int, schedule: Schedule
    ) -> Tensor:
        cfg, (V, B) = self.cfg, features_VBD.shape[:2]
        vectors = head(features_VBD.flatten(0, 1)).view(V, B, -1)
        return contrast_loss(vectors, taught_IBD, cfg.student_temperature, first, 2 + cfg.local_crops, films.start)


class Centre(nn.Module):
    """Running mean of the teacher's prototype logits [K]."""

    def __init__(self, prototypes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(prototypes))


COMPARISONS = {"prototypes": ByPrototypes, "films": ByFilms}
