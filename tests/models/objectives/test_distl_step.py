"""The self-training step against its literal twin in float64: losses, gradients, centre, teacher, weights, schedules.

Each equality has a control: the twin with one thing done differently must not agree.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from models.config import build
from models.loop import LoopConfig, learning_rate, train
from models.model import ModelConfig, furnish, initial_model
from models.objectives import Schedule
from models.objectives._distl_order import Correction, arrange
from models.objectives._distl_ramps import alpha, momentum, teacher_temperature
from models.objectives.distl import Config, Distl
from models.studies.schema import Label
from models.studies.views import ImageBatch, LabelledBatch
from tests.reference import distl as literal

SIZES = literal.Sizes(
    width=24, depth=3, heads=3, patch=4, grid=7, hidden=20, bottleneck=12, prototypes=40, class_hidden=10, findings=2
)
VISION = {"name": "vit", "image_size": 28, "patch": 4, "width": 24, "depth": 3, "heads": 3, "positions": "learned"}
SMALL = {
    "findings": ("Edema", "Pneumonia"),
    "size": 32,
    "local_size": 16,
    "local_crops": 8,
    "prototypes": 40,
    "prototype_hidden": 20,
    "bottleneck": 12,
    "head_hidden": (10, 10),
}
CPU = torch.device("cpu")
ALL = ("site.teacher", "site.teacher_prototypes", "site.prototypes", "site.centre")


class Fixed(Distl):
    """Crops that are given, in float64; everything else is the objective's own."""

    crops: list

    def views(self, films):
        both, local = self.crops.pop(0)
        return both, local


def crops(batch: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    draw = lambda n, side: torch.rand(n, batch, 1, side, side, generator=g, dtype=torch.float64)
    return draw(2, 32), draw(8, 16)


def as_list(views) -> list[torch.Tensor]:
    return [*views[0], *views[1]]


def made(seed: int = 0, **changes):
    """The project's model and objective in float64, with weights shaken so that nothing is zero or alike."""
    objective = Fixed(build(Config, {**SMALL, **changes}))
    model = initial_model(build(ModelConfig, {"vision": VISION}), [objective], seed)
    furnish(model, objective, seed)
    model.double()
    g = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, module in model.components().items():
            scale = 0.02 if name == "site.centre" else 0.05
            for tensor in [*module.parameters(), *module.buffers()]:
                if tensor.is_floating_point():
                    tensor.add_(scale * torch.randn(tensor.shape, generator=g, dtype=torch.float64))
    return model, objective


def flat(model, teacher: bool) -> dict[str, torch.Tensor]:
    parts = (
        {
            "vision": model.site["teacher"]["vision"],
            "head": model.site["teacher"]["head"],
            "prototypes": model.site["teacher_prototypes"],
        }
        if teacher
        else {
            "vision": model.vision,
            "head": model.heads["distl"],
            "prototypes": model.site["prototypes"] if "prototypes" in model.site else model.heads["prototypes"],
        }
    )
    return {f"{part}/{name}": t for part, module in parts.items() for name, t in module.state_dict().items()}


def twin(model, kind=literal.Reference, **settings):
    reference = kind(SIZES, literal.Settings(**settings))
    for network, teacher in ((reference.student, False), (reference.teacher, True)):
        network.double()
        literal.load(network, flat(model, teacher))
    reference.centre = model.site["centre"].mean.clone()[None]
    return reference


def compute(model, objective, views, labels=None, schedule=None):
    """Losses of one step and the student's gradients, part by part, as the loop takes them."""
    model.requires_grad_(False)
    for name in (*objective.trains, *objective.trains_here):
        model.components()[name].requires_grad_(True).zero_grad()
    total, parts = 0.0, {}
    for part in objective.on_views(model, views, labels, schedule or Schedule(1, 1, 50, 100)):
        loss = sum(part.values())
        loss.backward()
        total += loss.item()
        for name, value in part.items():
            parts[name] = parts.get(name, 0.0) + value.item()
    tensors = {"vision": model.vision, "head": model.heads["distl"]}
    tensors["prototypes"] = objective._student_prototypes(model)
    found = {f"{part}/{n}": p.grad for part, module in tensors.items() for n, p in module.named_parameters()}
    return total, parts, found


def truth(batch: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(8)
    return torch.randint(0, 2, (batch, 2), generator=g)


def assert_gradients(found, reference):
    wanted = literal.gradients(reference.student)
    assert found.keys() == wanted.keys()
    for name, want in wanted.items():
        assert found[name] is not None, name
        torch.testing.assert_close(found[name], want, rtol=1e-9, atol=1e-12, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("micro", [0, 2])
def test_losses_gradients_and_centre_are_the_literal_steps(labelled, batch, micro):
    model, objective = made(micro_batch=micro)
    reference, views = twin(model), crops(batch, 5)
    labels = truth(batch) if labelled else None
    total, parts, found = compute(model, objective, views, labels)
    weight = alpha(objective.cfg, Schedule(1, 1, 50, 100))
    assert weight == pytest.approx(1.2)
    want = reference.losses(as_list(views), weight, None if labels is None else labels.double())
    want["loss"].backward()
    assert total == pytest.approx(want["loss"].item(), rel=1e-12)
    assert parts["view_loss"] == pytest.approx(0.5 * want["ssl"].item(), rel=1e-12)
    assert parts["label_loss" if labelled else "pseudo_loss"] == pytest.approx(0.5 * want["task"].item(), rel=1e-12)
    assert_gradients(found, reference)
    torch.testing.assert_close(model.site["centre"].mean, reference.centre[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("where", "weight"), [("site", 0.0), ("site", 0.3), ("travel", 0.3), ("site", 1.0), ("travel", 1.0)]
)  # weight 0 with prototypes that travel is refused by the configuration
def test_the_weight_of_self_supervision_and_the_place_of_the_prototypes(where, weight):
    if weight == 0.0:
        model, objective = made()  # a furnished model has prototypes; the objective without views ignores them
        objective = Fixed(build(Config, {**SMALL, "ssl_weight": 0.0}))
        reference, views = twin(model, ssl_weight=0.0), crops(2, 5)
        total = sum(sum(p.values()).item() for p in objective.on_views(model, views, None, Schedule(1, 1, 0, 10)))
        assert total == pytest.approx(reference.losses(as_list(views), 0.4)["loss"].item(), rel=1e-12)
        return
    model, objective = made(ssl_weight=weight, prototypes_travel=where == "travel")
    reference, views = twin(model, ssl_weight=weight), crops(2, 5)
    total, parts, found = compute(model, objective, views)
    want = reference.losses(as_list(views), 1.2)
    want["loss"].backward()
    assert total == pytest.approx(want["loss"].item(), rel=1e-12)
    if weight == 1.0:
        assert "pseudo_loss" not in parts
        found = {n: g if g is not None else torch.zeros_like(flat(model, False)[n]) for n, g in found.items()}
    assert_gradients(found, reference)


class WrongPseudo(literal.Reference):
    def pseudo_labels(self, classes):
        return torch.sigmoid(classes[1])


class WrongView(literal.Reference):
    def diagnosis(self, classes):
        return classes[0]


class SelfPairs(literal.Reference):
    def self_supervision(self, s, t):
        terms = [
            torch.sum(-self.targets(x) * F.log_softmax(y / self.settings.student_temperature, dim=-1), dim=-1).mean()
            for x in t
            for y in s
        ]
        return torch.stack(terms).mean()


class EarlyCentre(literal.Reference):
    def self_supervision(self, s, t):
        self.move_centre(t)
        return super().self_supervision(s, t)


class NoCentre(literal.Reference):
    def targets(self, t):
        return torch.softmax(t / self.settings.teacher_temperature, dim=-1)


class HardPseudo(literal.Reference):
    def pseudo_labels(self, classes):
        return (classes[0] > 0).double()


@pytest.mark.parametrize("kind", [WrongPseudo, WrongView, SelfPairs, EarlyCentre, NoCentre, HardPseudo])
def test_a_step_that_differs_in_one_thing_is_told_apart(kind):
    model, objective = made()
    reference, views = twin(model, kind), crops(3, 5)
    total, _, _ = compute(model, objective, views)
    assert total != pytest.approx(reference.losses(as_list(views), 1.2)["loss"].item(), rel=1e-9)


@pytest.mark.parametrize(
    "settings", [{"student_temperature": 0.11}, {"teacher_temperature": 0.05}, {"ssl_weight": 0.49}]
)
def test_a_setting_that_differs_is_told_apart(settings):
    model, objective = made()
    total, _, _ = compute(model, objective, crops(3, 5))
    want = twin(model, **settings).losses(as_list(crops(3, 5)), 1.2)["loss"].item()
    assert total != pytest.approx(want, rel=1e-5)


# -- whole rounds through the project's loop ------------------------------------------------------------------------


class Table:
    """``unlabelled`` films of grey after ``labelled`` ones with true labels."""

    def __init__(self, labelled: int, unlabelled: int) -> None:
        self.labelled, self.unlabelled = labelled, unlabelled
        g = torch.Generator().manual_seed(3)
        answers = torch.randint(0, 2, (labelled, 2), generator=g)
        answers[0], answers[-1] = 0, 1
        missing = torch.full((unlabelled, 2), int(Label.UNMENTIONED))
        self.labels = torch.cat([answers, missing]).to(torch.int8).numpy()
        self.patients = torch.arange(labelled + unlabelled).numpy()

    def __len__(self) -> int:
        return self.labelled + self.unlabelled

    def batch(self, chosen: torch.Tensor):
        films = torch.zeros(len(chosen), 1, 32, 32, dtype=torch.uint8)
        if bool((chosen < self.labelled).all()):
            return LabelledBatch(films, torch.from_numpy(self.labels[chosen.numpy()]))
        return ImageBatch(films)


LOCAL = {
    "batch_size": 4,
    "lr": 1e-3,
    "warmup": 1,
    "min_lr": 1e-6,
    "weight_decay": 0.01,
    "clip_norm": 0.02,
    "clip": "each",
    "steps": 5,
}


def rounds(model, objective, table, count: int, seen: list, **local) -> None:
    cfg = build(LoopConfig, {**LOCAL, **local})
    for number in range(1, count + 1):
        fresh = Fixed(objective.cfg)
        order = fresh.order(table, cfg, Schedule(number, count, 0, 1), torch.Generator().manual_seed(number))
        fresh.order = lambda *_, kept=order: kept
        fresh._follow_labels = objective.cfg.correction.ema or not table.unlabelled
        fresh._usable = torch.ones(2, dtype=torch.bool)
        batches = [(at, table.batch(chosen)) for at, chosen in order.batches]
        given = [crops(len(b), 100 * number + i) for i, (_, b) in enumerate(batches)]
        fresh.crops = list(given)
        seen += [(Schedule(number, count, at, order.steps), b, v) for (at, b), v in zip(batches, given)]
        train(model, fresh, table, cfg, round=number, rounds=count, seed=0, names=("x", number), device=CPU,
              kept=() if number == 1 else ALL)  # fmt: skip


def replay(reference, seen, cfg: Config, **local) -> None:
    """The literal steps on the same crops, with every schedule from the page's formulas for five epochs.

    Optimiser state starts anew each round, as in every federation here; within a round it goes on.
    """
    loop, last = build(LoopConfig, {**LOCAL, **local}), None
    for schedule, batch, views in seen:
        if schedule.round != last:
            reference.optimiser.state.clear()
            last = schedule.round
        total = schedule.rounds * schedule.steps
        step = (schedule.round - 1) * schedule.steps + schedule.step
        epoch = 5 * step // total
        reference.step(
            as_list(views),
            lr=learning_rate(loop, schedule),
            alpha=literal.alphas(5)[epoch],
            momentum=literal.momenta(cfg.momentum, 1.0, 5, total // 5)[step],
            freeze_last=epoch == 0,
            labels=batch.labels.double() if isinstance(batch, LabelledBatch) else None,
        )


def started(**changes):
    """A model whose teacher is the student, and its literal twin, before the first round."""
    model, objective = made(momentum=0.9, **changes)
    objective.begin(model, Schedule(1, 5, 0, 5), ())
    return model, objective, twin(model, clip=LOCAL["clip_norm"])


def assert_same_networks(model, reference):
    for teacher, network in ((False, reference.student), (True, reference.teacher)):
        own = flat(model, teacher)
        for name, want in network.state_dict().items():
            torch.testing.assert_close(own[literal.project_name(name)], want, rtol=0, atol=1e-9)
    torch.testing.assert_close(model.site["centre"].mean, reference.centre[0], rtol=0, atol=1e-10)


PHASE = {"alpha_steps": 5, "freeze_prototypes": 0.2}


@pytest.mark.parametrize("count", [1, 5])
def test_a_phase_with_corrections_is_the_literal_phase(count):
    """Weights, teacher and centre after 25 steps and the corrections between them: as one round, which is the published
    program's five epochs on one machine, and as five."""
    local = {"steps": 25 // count, "warmup": count / 5}
    model, objective, reference = started(**PHASE, correction={"every": 7, "ratio": None, "least": 0})
    before = flat(model, True)["vision/norm.weight"].clone()
    seen: list = []
    rounds(model, objective, Table(6, 17), count, seen, **local)
    replay(reference, seen, objective.cfg, **local)
    step = lambda s: (s.round - 1) * s.steps + s.step
    corrections = [(step(s), len(b)) for s, b, _ in seen if isinstance(b, LabelledBatch)]
    # A whole pass over six films in batches of four and two; none after step 0, when the published rate was zero.
    assert corrections == [(s, n) for s in (7, 14, 21) for n in (4, 2)]
    assert not torch.allclose(before, flat(model, True)["vision/norm.weight"], atol=1e-5)
    assert_same_networks(model, reference)


class GlobalClip(literal.Reference):
    def clip(self):
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), self.settings.clip)


class LateTeacher(literal.Reference):
    def follow(self, momentum):
        super().follow(1 - (1 - momentum) / 2)


class TeacherFollowsCorrections(literal.Reference):
    def step(self, views, **given):
        out = super().step(views, **given)
        if given["labels"] is not None:
            self.follow(given["momentum"])
        return out


class Thawed(literal.Reference):
    def step(self, views, **given):
        return super().step(views, **{**given, "freeze_last": False})


@pytest.mark.parametrize("kind", [GlobalClip, LateTeacher, TeacherFollowsCorrections, Thawed, EarlyCentre])
def test_a_phase_that_differs_in_one_thing_ends_elsewhere(kind):
    model, objective, _ = started(**PHASE, correction={"every": 3, "ratio": None})
    reference = twin(model, kind, clip=LOCAL["clip_norm"])
    seen: list = []
    rounds(model, objective, Table(6, 17), 5, seen, steps=2)
    replay(reference, seen, objective.cfg, steps=2)
    with pytest.raises(AssertionError):
        assert_same_networks(model, reference)


def test_the_teacher_may_follow_corrections():
    model, objective, _ = started(**PHASE, correction={"every": 3, "ratio": None, "ema": True})
    reference = twin(model, TeacherFollowsCorrections, clip=LOCAL["clip_norm"])
    seen: list = []
    rounds(model, objective, Table(6, 17), 5, seen, steps=2)
    replay(reference, seen, objective.cfg, steps=2)
    assert_same_networks(model, reference)


# -- schedules, and numbers that the paper's program prints -------------------------------------------------------------


def at(progress: float, steps: int = 1000) -> Schedule:
    return Schedule(1, 1, round(progress * steps), steps)


def test_alpha_climbs_by_epochs():
    cfg = Config(**SMALL)
    found = [alpha(cfg, Schedule(e + 1, 5, s, 7)) for e in range(5) for s in range(7)]
    assert found == pytest.approx([a for a in (0.4, 0.8, 1.2, 1.6, 2.0) for _ in range(7)], rel=1e-12)
    one_machine = [alpha(cfg, Schedule(1, 1, s, 35)) for s in range(35)]
    assert one_machine == found  # five rounds of one epoch, or one round of five
    assert [alpha(Config(**SMALL, alpha_steps=0), at(p)) for p in (0, 0.25, 0.5)] == [0, 0.5, 1.0]


@pytest.mark.parametrize(("epochs", "steps"), [(1, 10), (5, 101), (5, 7)])
def test_momentum_is_the_published_cosine(epochs, steps):
    cfg = Config(**SMALL)
    want = literal.momenta(0.9995, 1.0, epochs, steps)
    found = [momentum(cfg, Schedule(e + 1, epochs, s, steps)) for e in range(epochs) for s in range(steps)]
    assert found == pytest.approx(want, abs=1e-15)
    assert found[0] == pytest.approx(0.9995) and max(found) < 1


def test_the_learning_rate_is_the_published_one_half_a_step_later():
    """So it is never zero: the published one starts at exactly zero, with a whole labelled pass at that rate."""
    epochs, steps = 5, 100
    cfg = build(LoopConfig, {"epochs": 1, "lr": 5e-5, "warmup": 1, "min_lr": 1e-6})
    want = literal.learning_rates(5e-5, 1e-6, epochs, steps, 1)
    found = [learning_rate(cfg, Schedule(e + 1, epochs, s, steps)) for e in range(epochs) for s in range(steps)]
    assert want[0] == 0.0 < found[0]
    assert max(found) <= 5e-5 and min(found[steps:]) >= 1e-6
    rising = 5e-5 / (steps - 1)
    for i, (own, published) in enumerate(zip(found, want)):
        slope = rising if i < steps else 5e-5 * math.pi / (2 * (epochs - 1) * steps)
        assert abs(own - published) <= 1.01 * slope
    exact = lambda t: 1e-6 + 0.5 * (5e-5 - 1e-6) * (1 + math.cos(math.pi * t / (400)))
    assert found[steps:] == pytest.approx([exact(i + 0.5) for i in range(400)], rel=1e-12)


def test_the_teacher_temperature_ramp():
    cfg = Config(**SMALL, teacher_temperature=0.07, teacher_temperature_start=0.04, teacher_temperature_rise=0.3)
    assert [teacher_temperature(cfg, at(p)) for p in (0, 0.15, 0.3, 0.9)] == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert teacher_temperature(Config(**SMALL), at(0)) == 0.04


@pytest.mark.parametrize(("films", "published"), [(1600, 0), (1616, 1), (8000, 4)])
def test_the_published_period_leaves_small_sites_without_a_correction_and_ours_does_not(films, published):
    """Batches of 16, five epochs, period 500; step 0 counts for nothing, as its rate was zero."""

    class Site:
        labelled, unlabelled = 10, films

    def corrections(**correction) -> int:
        cfg = build(LoopConfig, {"epochs": 1, "batch_size": 16})
        total = 0
        for number in range(1, 6):
            g = torch.Generator().manual_seed(0)
            order = arrange(Site, cfg, Correction(**correction), None, Schedule(number, 5, 0, 1), g)
            total += sum(1 for _, chosen in order.batches if int(chosen[0]) < 10)
        return total

    assert corrections(every=500, ratio=None, least=0) == published
    assert corrections(every=500, ratio=None, least=1) == max(published, 1)
    assert corrections(every=None, ratio=0.5) == pytest.approx(0.5 * films * 5 / 10, rel=0.02)


def test_the_published_network_has_the_published_size():
    objective = build(Config, {"findings": ["Tuberculosis"]}).build()
    vision = {"name": "vit", "image_size": 224, "patch": 8, "channels": 3, "positions": "learned"}
    with torch.device("meta"):
        tower = build(ModelConfig, {"vision": vision}).vision.build()
        heads = objective.heads(384)
        prototypes = objective.comparison.head(384)
    count = lambda module: sum(p.numel() for p in module.parameters())
    assert count(tower) == 21_670_272 - 384  # the class token's position is one with the token
    assert count(prototypes) + 65536 == 22_352_128  # with the published gain of each prototype, fixed at one
    student = count(tower) + count(heads["distl"])
    assert student == pytest.approx(21.83e6, rel=1e-3)
    assert student * 2 < 45e6 and (student + count(prototypes)) * 4 == pytest.approx(177e6, rel=3e-3)
