"""Self-training distillation (DISTL; Park et al., Nature Communications 2022, 13:3848): unlabelled films become useful.

A student learns from a teacher that follows it slowly. The teacher sees a film as it is; the student sees it changed
and in pieces, and is asked for the teacher's view of it (self-supervision, the loss of DINO, arXiv 2104.14294) and for
the teacher's diagnosis (self-training, soft pseudo-labels). Now and then it is corrected by true labels.

    unlabelled step   w * view_loss + (1 - w) * alpha(t) * BCE(student(augmented), sigmoid(teacher(clean)))
    correction        w * view_loss + (1 - w) * BCE(student(augmented), labels), or the latter alone at its full weight
    initial stage     BCE(student(augmented), labels), on labelled films alone

A run has one phase a stage: ``initial``, then ``evolve`` with one, two, three folds of the unlabelled films. The
student (``vision``, ``head.distl``) travels. Teacher, centre and, by default, prototypes stay at the site
(``site.teacher`` and so on); ``teacher: derived`` starts the teacher from the student received in every round instead.

What differs from the published program, and why: corrections scale with the site (``correction``), none happens at a
learning rate of zero, partial batches are used, splits and folds are by patient, films are scaled to [0,1] in training
and in evaluation alike, and no film is flipped by default.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ConfigError, config
from models.loop import LoopConfig
from models.objectives import Order, PrivacyRecipe, Schedule
from models.objectives._distl_compare import COMPARISONS
from models.objectives._distl_heads import class_head
from models.objectives._distl_loss import koleo, wide
from models.objectives._distl_order import Correction, arrange
from models.objectives._distl_ramps import alpha, momentum
from models.objectives._distl_watch import Watch, answered_both_ways
from models.objectives.diagnosis import balance_weights, check_findings, masked_bce
from models.studies.augment import to_float
from models.studies.crops import ViewConfig, draw
from models.studies.partly import PartlyLabelled
from models.studies.schema import Label
from models.studies.store import Store
from models.studies.views import Labelled, LabelledBatch, ViewError

LOCAL_VIEW = ViewConfig(area=(0.2, 0.6), autocontrast=0.5, equalise=0.5, blur=0.5)


@config
class Config:
    """Sizes in pixels; temperatures, weights and momenta without unit; shares are of the phase."""

    name: Literal["distl"] = "distl"
    findings: tuple[str, ...]
    stage: Literal["initial", "evolve"] = "evolve"
    folds: int = 3
    """Folds of the unlabelled patients of a site."""
    use: int = 3
    """How many of the folds this phase reads."""
    fit: Literal["crop", "pad", "squash"] = "crop"

    size: int = 256
    """Side of the clean and of the augmented view."""
    local_size: int = 128
    local_crops: int = 8
    augmented: ViewConfig = ViewConfig()
    local: ViewConfig = LOCAL_VIEW

    ssl_weight: float = 0.5
    """w above; 1 is self-supervision alone, 0 self-training alone."""
    ssl_until: float = 1.0
    """Share of the phase after which only the diagnosis is trained, at its full weight."""
    alpha_peak: float = 2.0
    alpha_steps: int = 5
    """The weight of pseudo-labels rises in so many equal steps to its peak; 0 for a straight ramp from 0."""
    correction: Correction = Correction()
    balance: bool = False
    """Whether labelled films are drawn so that rare answers come as often as common ones."""

    teacher: Literal["site", "derived", "none"] = "site"
    """``site``: kept at the site between rounds; ``derived``: begun anew each round from the student received;
    ``none``: for the initial stage alone, which does not need one."""
    teacher_start: Literal["student", "kept"] = "student"
    """What the teacher of this phase's first round is: the student received, or the teacher of the phase before."""
    momentum: float = 0.9995
    momentum_end: float = 1.0
    """The teacher's inertia, a cosine from the first to the second over the phase."""

    compare: Literal["prototypes", "films"] = "prototypes"
    """What views are compared through: ``prototypes`` as published; ``films``: a view of a film shall be nearer to the
    teacher's other view of it than to those of the batch's other films, at ``student_temperature``. A few hundred films
    teach a small tower more this way than through prototypes."""
    targets: Literal["centre", "fixed", "sinkhorn"] = "centre"
    """``centre``: less a running mean; ``fixed``: less zero, which keeps no statistic of private films."""
    centre_momentum: float = 0.9
    teacher_temperature: float = 0.04
    teacher_temperature_start: float | None = None
    teacher_temperature_rise: float = 0.0
    """Share of the phase over which the teacher's temperature goes from its start to its value."""
    student_temperature: float = 0.1
    koleo: float = 0.0
    """Weight of the spread of the student's features over a batch."""

    prototypes: int = 65536
    prototype_hidden: int = 2048
    bottleneck: int = 256
    prototype_norm: Literal["none", "batch"] = "none"
    """``batch``: the layers before the prototypes are standardised over the batch; a small tower that begins from nothing
    does not learn from views without."""
    unit_prototypes: bool = True
    """Prototypes count by direction alone (weight normalisation); false for a plain linear layer."""
    freeze_prototypes: float = 0.2
    """Share of the phase, from its start, in which the prototype matrix is not trained."""
    prototypes_travel: bool = False
    """Whether the layers that views are compared through travel too; sites that keep their own pull the tower apart."""
    head_hidden: tuple[int, ...] = (256, 256)
    head_norm: Literal["none", "batch"] = "none"
    """``batch``: the classifier sees features standardised over the batch, which learns more from a few labelled films."""

    micro_batch: int | None = None
    """Films whose activations are held at a time, which changes memory and not the step; 0 for the whole batch; null for
    the whole batch on an accelerator and some 2,000 tokens on a processor, which larger batches do not make faster."""
    collapse: float = 0.01
    """Least share of the rarer answer among pseudo-labels before the round is reported as collapsed; 0 never."""

    same_in_all_phases: ClassVar[tuple[str, ...]] = (
        *("findings", "compare", "prototypes", "prototype_hidden", "prototype_norm", "bottleneck", "unit_prototypes"),
        *("prototypes_travel", "head_hidden", "head_norm"),
    )

    def check(self) -> None:
        check_findings(self.findings)
        _check_ranges(self)
        if self.local_size > self.size:
            raise ConfigError(
                f"local_size {self.local_size} and size {self.size}: a local crop cannot be larger than the film"
            )
        if not 1 <= self.use <= self.folds:
            raise ConfigError(f"use {self.use} and folds {self.folds}: use from 1 to all of the folds")
        if self.stage == "evolve" and self.teacher == "none":
            raise ConfigError("stage 'evolve' and teacher 'none': there is nothing to learn from without a teacher")
        if self.koleo and self.micro_batch:
            raise ConfigError(f"koleo {self.koleo} and micro_batch {self.micro_batch}: KoLeo needs the whole batch")
        for name in ("prototype_norm", "head_norm"):
            if getattr(self, name) == "batch" and self.micro_batch:
                raise ConfigError(f"{name} 'batch' and micro_batch {self.micro_batch}: it needs the whole batch")
        if self.targets == "sinkhorn" and self.teacher_temperature_start is not None:
            raise ConfigError("targets 'sinkhorn' and teacher_temperature_start: the ramp belongs to centred targets")
        if (self.teacher_temperature_start is None) != (self.teacher_temperature_rise == 0):
            raise ConfigError(
                f"teacher_temperature_start {self.teacher_temperature_start} and teacher_temperature_rise "
                f"{self.teacher_temperature_rise}: give both or neither"
            )
        if self.prototypes_travel and self.ssl_weight == 0:
            raise ConfigError("prototypes_travel and ssl_weight 0: prototypes that are not trained need not travel")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the images that the tower sees; its patch must divide each."""
        return (self.size, self.local_size) if self.stage == "evolve" and self.uses_views else (self.size,)

    @property
    def uses_views(self) -> bool:
        """Whether self-supervision takes part at all."""
        return self.ssl_weight > 0 and self.ssl_until > 0

    def at_server(self) -> Config:
        """The same, for the labelled films that a server may hold: the supervised stage."""
        return replace(self, stage="initial", teacher="none", prototypes_travel=False)

    def build(self) -> Distl:
        return Distl(self)


def _check_ranges(cfg: Config) -> None:
    for name in ("size", "local_size", "folds", "prototypes", "prototype_hidden", "bottleneck"):
        if getattr(cfg, name) < 1:
            raise ConfigError(f"{name} {getattr(cfg, name)}: at least 1")
    for name in ("local_crops", "alpha_steps", "micro_batch", "alpha_peak", "koleo"):
        if (getattr(cfg, name) or 0) < 0:
            raise ConfigError(f"{name} {getattr(cfg, name)}: must not be negative")
    for name in ("ssl_weight", "ssl_until", "momentum", "momentum_end", "centre_momentum", "freeze_prototypes"):
        if not 0 <= getattr(cfg, name) <= 1:
            raise ConfigError(f"{name} {getattr(cfg, name)}: must be in [0, 1]")
    for name in ("teacher_temperature_rise", "collapse"):
        if not 0 <= getattr(cfg, name) < 0.5:
            raise ConfigError(f"{name} {getattr(cfg, name)}: must be in [0, 0.5)")
    for name in ("teacher_temperature", "teacher_temperature_start", "student_temperature"):
        if getattr(cfg, name) is not None and not getattr(cfg, name) > 0:
            raise ConfigError(f"{name} {getattr(cfg, name)}: must be positive")
    if any(width < 1 for width in cfg.head_hidden):
        raise ConfigError(f"head_hidden {list(cfg.head_hidden)}: widths of at least 1; empty for a linear head")


class Distl:
    """The objective; one object a round, as it keeps the round's tallies."""

    view: ClassVar[type] = PartlyLabelled
    privacy: ClassVar[PrivacyRecipe | None] = None
    no_privacy: ClassVar[str] = (
        "a running centre, Sinkhorn-Knopp, KoLeo, batch norm and comparison by films mix the films of a batch; without "
        "them a patient's gradient is bounded, but no DP engine is built yet"
    )

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.evolves = cfg.stage == "evolve"
        self.has_views = self.evolves and cfg.uses_views
        self.comparison = COMPARISONS[cfg.compare](cfg)
        travelling_prototypes = ("head.prototypes",) if self.has_views and cfg.prototypes_travel else ()
        self.supervised = not self.evolves
        self.in_parts = self.evolves
        self.needs_labels = cfg.ssl_weight < 1
        self.trains = ("vision", "head.distl", *travelling_prototypes)
        self.trains_here = ("site.prototypes",) if self.has_views and not cfg.prototypes_travel else ()
        self.watch = Watch(cfg.findings, cfg.collapse)
        self._usable = torch.ones(len(cfg.findings), dtype=torch.bool)
        self._follow_labels = True
        self._pairs: list[tuple[list[Tensor], list[Tensor]]] = []

    # -- what it is made of ------------------------------------------------------------------------------------

    def heads(self, width: int) -> Mapping[str, nn.Module]:
        cfg = self.cfg
        made: dict[str, nn.Module] = {"distl": class_head(width, cfg.head_hidden, len(cfg.findings), cfg.head_norm)}
        if cfg.prototypes_travel:
            made["prototypes"] = self.comparison.head(width)
        return made

    def residents(self, model: nn.Module) -> Mapping[str, nn.Module]:
        made: dict[str, nn.Module] = {}
        if self.has_views:
            head = model.heads["prototypes"] if self.cfg.prototypes_travel else self.comparison.head(model.vision.width)
            if not self.cfg.prototypes_travel:
                made["prototypes"] = head
            made["teacher_prototypes"] = copy.deepcopy(head)
            made |= self.comparison.memory()
        if self.cfg.teacher != "none":
            made["teacher"] = nn.ModuleDict(
                {"vision": copy.deepcopy(model.vision), "head": copy.deepcopy(model.heads["distl"])}
            )
        return made

    def open(self, store: Store, rows: Any) -> PartlyLabelled:
        """Raises ViewError where this stage has nothing to train on."""
        cfg = self.cfg
        folds = (cfg.folds, cfg.use) if self.evolves else (1, 0)
        view = PartlyLabelled(store, rows, cfg.size, cfg.fit, cfg.findings, *folds)
        if not view.unlabelled and not answered_both_ways(view.labels).any():
            raise ViewError("the labelled films all have the same answer; a classifier cannot be learnt from one class")
        return view

    def open_held_out(self, store: Store, rows: Any) -> Labelled:
        """The view on which the student is judged."""
        return Labelled(store, rows=rows, size=self.cfg.size, fit=self.cfg.fit, findings=self.cfg.findings)

    # -- a round -----------------------------------------------------------------------------------------------

    def weights(self, view: PartlyLabelled) -> Tensor | None:
        """Sampling weights of the labelled items."""
        return balance_weights(torch.as_tensor(view.labels[: view.labelled])) if self.cfg.balance else None

    def order(self, view: PartlyLabelled, local: LoopConfig, schedule: Schedule, generator: torch.Generator) -> Order:
        usable = answered_both_ways(view.labels[: view.labelled])
        self._usable = torch.from_numpy(usable)
        correction = self.cfg.correction
        if not usable.any():  # labels of one class would only pull every answer to that class
            correction = replace(correction, ratio=None, every=None)
        # Corrections do not move the teacher unless asked to; steps that count always do.
        self._follow_labels = correction.ema or view.unlabelled == 0
        return arrange(view, local, correction, self.weights(view), schedule, generator)

    @torch.no_grad()
    def begin(self, model: nn.Module, schedule: Schedule, kept: Collection[str]) -> None:
        cfg, first = self.cfg, schedule.round == 1
        twins = self._teacher_and_student(model)
        self._pairs = list(twins.values())
        if self.has_views:  # the teacher's vectors are standardised as the student's are: over the batch
            model.site["teacher_prototypes"].train(cfg.prototype_norm == "batch")
        if "centre" in model.site and (first or "site.centre" not in kept):
            model.site["centre"].mean.zero_()
        finite = all(bool(torch.isfinite(t).all()) for teacher, _ in self._pairs for t in teacher)
        self.watch.reset = not finite
        anew = not finite or cfg.teacher == "derived" or (first and cfg.teacher_start == "student")
        for name, (teacher, student) in twins.items():
            if anew or name not in kept:
                torch._foreach_copy_(teacher, student)

    def _teacher_and_student(self, model: nn.Module) -> dict[str, tuple[list[Tensor], list[Tensor]]]:
        """Floating-point tensors of the teacher's components beside the student's."""
        if self.cfg.teacher == "none":
            return {}
        teacher = model.site["teacher"]
        student = [*_floating(model.vision), *_floating(model.heads["distl"])]
        twins = {"site.teacher": ([*_floating(teacher["vision"]), *_floating(teacher["head"])], student)}
        if self.has_views:
            own = _floating(model.site["teacher_prototypes"])
            twins["site.teacher_prototypes"] = (own, _floating(self._student_prototypes(model)))
        return twins

    def _student_prototypes(self, model: nn.Module) -> nn.Module:
        return model.heads["prototypes"] if self.cfg.prototypes_travel else model.site["prototypes"]

    @torch.no_grad()
    def after_step(self, model: nn.Module, batch: Any, schedule: Schedule) -> None:
        if isinstance(batch, LabelledBatch) and not self._follow_labels:
            return
        share = 1 - momentum(self.cfg, schedule)
        for teacher, student in self._pairs:
            torch._foreach_lerp_(teacher, student, share)

    def notes(self, view: PartlyLabelled, min_cell: int) -> list[Any]:
        return self.watch.notes(view, min_cell)

    # -- what it computes --------------------------------------------------------------------------------------

    def logits(self, model: nn.Module, images_uint8: Tensor) -> Tensor:
        """The student's [B,F] from uint8 films [B,1,S,S], without augmentation."""
        return model.heads["distl"](model.vision(to_float(images_uint8, model.vision.cfg.channels)))

    def teacher_logits(self, model: nn.Module, images_uint8: Tensor) -> Tensor:
        """The teacher's, likewise."""
        teacher = model.site["teacher"]
        return teacher["head"](teacher["vision"](to_float(images_uint8, model.vision.cfg.channels)))

    def step(self, model: nn.Module, batch: Any, schedule: Schedule) -> dict[str, Tensor] | Iterator[dict[str, Tensor]]:
        films, labels = to_float(batch.images), getattr(batch, "labels", None)
        if self.evolves and (labels is None or self.cfg.correction.views):
            return self.on_views(model, self.views(films), labels, schedule)
        with torch.autocast(films.device.type, enabled=False):
            how = (self.cfg.correction.augmented if self.evolves else None) or self.cfg.augmented
            augmented = draw(films, self.cfg.size, how)
        logits = model.heads["distl"](model.vision(_colour(augmented, model)))
        losses = {"label_loss": self._label_loss(logits, labels)}
        return iter([losses]) if self.evolves else losses

    def views(self, films_B1SS: Tensor) -> tuple[Tensor, Tensor]:
        """The clean and the augmented view [2,B,1,S,S], and the local crops [n,B,1,s,s]."""
        cfg, count = self.cfg, len(films_B1SS)
        # In bfloat16 the warp's coordinates would be off by up to a pixel.
        with torch.autocast(films_B1SS.device.type, enabled=False):
            both = torch.stack([films_B1SS, draw(films_B1SS, cfg.size, cfg.augmented)])
            crops = cfg.local_crops if self.has_views else 0
            local = films_B1SS.new_empty(0, count, 1, cfg.local_size, cfg.local_size)
            if crops:
                local = draw(films_B1SS.repeat(crops, 1, 1, 1), cfg.local_size, cfg.local)
                local = local.view(crops, count, 1, cfg.local_size, cfg.local_size)
        return both, local

    def on_views(
        self, model: nn.Module, views: tuple[Tensor, Tensor], labels: Tensor | None, schedule: Schedule
    ) -> Iterator[dict[str, Tensor]]:
        """The losses of one step on views that are drawn already, part by part; the centre moves."""
        both, local = views
        compares = self.has_views and schedule.progress < self.cfg.ssl_until
        pseudo, taught = self._teach(model, both, schedule, compares)
        if labels is None:
            self.watch.see(pseudo)
        whole = both.shape[1]
        size = self._films_at_once(model, both) or whole
        for start in range(0, whole, size):
            part = slice(start, min(start + size, whole))
            share = (part.stop - part.start) / whole
            truth = labels[part] if labels is not None else None
            losses = self._global_part(model, both[:, part], pseudo[part], truth, taught, part, schedule)
            yield {name: value * share for name, value in losses.items()}
            if compares and len(local):
                yield {"view_loss": self._view_part(model, local[:, part], taught, part, 2, schedule)[0] * share}

    def _films_at_once(self, model: nn.Module, both_2B1SS: Tensor) -> int:
        """0 for all of them."""
        cfg = self.cfg
        norms = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.vision.modules())
        mixes = cfg.koleo or norms or "batch" in (cfg.prototype_norm, cfg.head_norm)
        if cfg.micro_batch is not None or mixes or both_2B1SS.device.type != "cpu":
            return cfg.micro_batch or 0
        tokens = (both_2B1SS.shape[-1] // getattr(model.vision.cfg, "patch", 16)) ** 2
        return max(1, 800 // max(tokens, 1))

    @torch.no_grad()
    def _teach(
        self, model: nn.Module, both_2B1SS: Tensor, schedule: Schedule, compares: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Pseudo-labels [B,F] from the clean view and, if views are compared, what the teacher says of both."""
        teacher, count = model.site["teacher"], both_2B1SS.shape[1]
        seen = both_2B1SS.flatten(0, 1) if compares else both_2B1SS[0]
        features = teacher["vision"](_colour(seen, model))
        pseudo = wide(teacher["head"](features[:count])).sigmoid()
        if not compares:
            return pseudo, None
        return pseudo, self.comparison.teach(model, features, schedule).view(2, count, -1)

    def _global_part(
        self,
        model: nn.Module,
        both_2B1SS: Tensor,
        pseudo_BF: Tensor,
        labels_BF: Tensor | None,
        taught: Tensor | None,
        films: slice,
        schedule: Schedule,
    ) -> dict[str, Tensor]:
        """View loss of the two global views, and the loss of the diagnosis from the augmented one."""
        cfg, losses = self.cfg, {}
        if taught is None:
            features = model.vision(_colour(both_2B1SS[1], model))
            weight = 1 - cfg.ssl_weight if schedule.progress < cfg.ssl_until else 1.0
        else:
            losses["view_loss"], found = self._view_part(model, both_2B1SS, taught, films, 0, schedule)
            features, weight = found[1], 1 - cfg.ssl_weight
            if cfg.koleo:
                losses["koleo_loss"] = cfg.koleo * (koleo(found[0]) + koleo(found[1])) / 2
        if weight:
            logits = wide(model.heads["distl"](features))
            if labels_BF is None:
                loss = alpha(cfg, schedule) * F.binary_cross_entropy_with_logits(logits, pseudo_BF.to(logits.dtype))
                losses["pseudo_loss"] = weight * loss
            else:
                losses["label_loss"] = weight * self._label_loss(logits, labels_BF)
        return losses

    def _view_part(
        self, model: nn.Module, views_VB1ss: Tensor, taught: Tensor, films: slice, first: int, schedule: Schedule
    ) -> tuple[Tensor, Tensor]:
        """Weighted share of the view loss of views of one size, in one call; and their features [V,B,D]."""
        V, B = views_VB1ss.shape[:2]
        features = model.vision(_colour(views_VB1ss.flatten(0, 1), model)).view(V, B, -1)
        loss = self.comparison.loss(self._student_prototypes(model), features, taught, films, first, schedule)
        return self.cfg.ssl_weight * loss, features

    def _label_loss(self, logits_BF: Tensor, labels_BF: Tensor) -> Tensor:
        usable = self._usable.to(labels_BF.device)
        return masked_bce(wide(logits_BF), torch.where(usable, labels_BF, int(Label.UNMENTIONED)))


def _floating(module: nn.Module) -> list[Tensor]:
    return [t.detach() for t in module.state_dict().values() if t.is_floating_point()]


def _colour(images: Tensor, model: nn.Module) -> Tensor:
    """Films [...,1,S,S] with the channels that the tower expects."""
    channels = model.vision.cfg.channels
    return images if channels == 1 else images.expand(-1, channels, -1, -1)
