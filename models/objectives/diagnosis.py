"""Multi-label diagnosis: sigmoid cross-entropy on the findings that a film's labels speak about.

Uncertain and unmentioned labels take no part ("U-Ignore" of CheXpert, Irvin et al., arXiv 1901.07031): each is
masked, and the loss is the mean over the labels that remain. A batch without any known label has loss 0.

Batch balancing draws rare answers more often: a plain baseline that beat elaborate federated methods in
FedMedICL (arXiv 2407.08822). A draw picks one finding, then present or absent with equal chance, then a film
with that answer. So a single finding is balanced exactly; of several independent ones each only in the 1/F of
draws that picked it, and in the rest its positives come as often as in the data.

    objective:
      name: diagnosis
      findings: [Cardiomegaly, Pleural Effusion]
      balance: true
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ConfigError, config
from models.objectives import PrivacyRecipe, Schedule
from models.studies.augment import AugmentConfig, to_float
from models.studies.schema import Label, label_column
from models.studies.store import Store
from models.studies.views import Labelled, LabelledBatch
from models.vision import encode


@config
class Config:
    """``size``, ``fit``: side of the square input and how a film is made square (see the store's ``resized``)."""

    name: Literal["diagnosis"] = "diagnosis"
    findings: tuple[str, ...]
    size: int = 224
    fit: Literal["crop", "pad", "squash"] = "crop"
    balance: bool = True
    augment: AugmentConfig | None = AugmentConfig()
    label_smoothing: float = 0.0
    dropout: float = 0.0

    def check(self) -> None:
        check_findings(self.findings)
        if not 0 <= self.label_smoothing < 0.5:
            raise ConfigError(f"label_smoothing {self.label_smoothing}: must be in [0, 0.5)")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout {self.dropout}: must be in [0, 1)")

    def build(self) -> Diagnosis:
        return Diagnosis(self)


def check_findings(findings: tuple[str, ...]) -> None:
    """Raises ConfigError for none, for one that stands twice, and for a name that no store may hold."""
    if not findings:
        raise ConfigError("findings: empty; name at least one finding")
    if len(set(findings)) != len(findings):
        raise ConfigError(f"findings {list(findings)}: a finding stands twice")
    for finding in findings:
        try:
            label_column(finding)
        except ValueError as error:
            raise ConfigError(f"findings: {error}") from None


def masked_bce(logits_BF: Tensor, labels_BF: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean sigmoid cross-entropy over the entries of ``labels_BF`` (codes of ``Label``) that are PRESENT or ABSENT."""
    known = (labels_BF == Label.PRESENT) | (labels_BF == Label.ABSENT)
    target = (labels_BF == Label.PRESENT).to(logits_BF.dtype) * (1 - 2 * smoothing) + smoothing
    loss = F.binary_cross_entropy_with_logits(logits_BF, target, reduction="none")
    # where, not a product: an infinite logit on a masked label must not turn 0 * inf into NaN.
    return torch.where(known, loss, 0).sum() / known.sum().clamp(min=1)


def balance_weights(labels_NF: Tensor) -> Tensor:
    """Sampling weight [N], mean 1, of each film: the sum over its known labels of 1 / (films with that answer).

    Drawing by these weights is drawing a finding, then an answer, then a film, each uniformly. A finding with
    a single answer has nothing to balance and is left out; a film whose labels say nothing gets the smallest
    weight of the others, so it is not lost.
    """
    weights = torch.zeros(len(labels_NF), dtype=torch.float64)
    for labels_N in labels_NF.T:
        answers = [labels_N == Label.PRESENT, labels_N == Label.ABSENT]
        counts = [int(a.sum()) for a in answers]
        if min(counts) == 0:
            continue
        for answer, count in zip(answers, counts):
            weights[answer] += 1.0 / count
    if not weights.any():
        return torch.ones(len(labels_NF), dtype=torch.float64)
    weights[weights == 0] = weights[weights > 0].min()
    return weights / weights.mean()


class Diagnosis:
    """The objective; reads ``Labelled``, trains the vision tower and its own head."""

    view: ClassVar[type] = Labelled
    trains: ClassVar[tuple[str, ...]] = ("vision", "head.diagnosis")
    privacy: ClassVar[PrivacyRecipe | None] = None
    no_privacy: ClassVar[str] = "per-example gradients of this objective are bounded, but no DP engine is built yet"

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.augment = cfg.augment.build(cfg.size) if cfg.augment else nn.Identity()

    def heads(self, width: int) -> Mapping[str, nn.Module]:
        return {"diagnosis": nn.Sequential(nn.Dropout(self.cfg.dropout), _small_linear(width, len(self.cfg.findings)))}

    def open(self, store: Store, rows: Any) -> Labelled:
        return Labelled(store, rows=rows, size=self.cfg.size, fit=self.cfg.fit, findings=self.cfg.findings)

    def weights(self, view: Labelled) -> Tensor | None:
        return balance_weights(torch.as_tensor(view.labels)) if self.cfg.balance else None

    def logits(self, model: nn.Module, images_uint8: Tensor) -> Tensor:
        """[B,F] from uint8 films [B,1,S,S], without augmentation."""
        images = to_float(images_uint8, model.vision.cfg.channels)
        return model.heads["diagnosis"](model.vision(images))

    def step(self, model: nn.Module, batch: LabelledBatch, schedule: Schedule) -> dict[str, Tensor]:
        with torch.autocast(batch.images.device.type, enabled=False):
            # In bfloat16 the warp's matrices would move films of 224 pixels by up to one.
            images = self.augment(to_float(batch.images))
        channels = model.vision.cfg.channels
        features, losses = encode(model.vision, images.expand(-1, channels, -1, -1))
        logits = model.heads["diagnosis"](features)
        return {"bce_loss": masked_bce(logits.float(), batch.labels, self.cfg.label_smoothing), **losses}


def _small_linear(width: int, out: int) -> nn.Linear:
    """A head that starts at about probability 1/2 for every finding."""
    layer = nn.Linear(width, out)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer
