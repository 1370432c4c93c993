"""The local loop against closed forms: what is drawn, what a step does to a weight, and what stays still."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from models.config import ConfigError, build
from models.evaluation.results import Result
from models.loop import LoopConfig, NonFiniteLoss, batches, learning_rate, pick_precision, train
from models.model import ModelConfig, initial_model
from models.objectives import Order, Schedule
from models.randomness import stream
from models.registry import configure
from tests.world import FINDINGS

CPU = torch.device("cpu")
ALL = ("site.teacher",)
PLAIN = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "clip_norm": 0.0, "decay": "constant"}


@dataclass
class Rows:
    x: torch.Tensor
    y: torch.Tensor

    def to(self, device):
        return Rows(self.x.to(device), self.y.to(device))


@dataclass
class Table:
    """A view of N rows that remembers what was asked of it."""

    x: torch.Tensor
    y: torch.Tensor
    asked: list[list[int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, chosen: torch.Tensor) -> Rows:
        self.asked.append(chosen.tolist())
        return Rows(self.x[chosen], self.y[chosen])


class Line(nn.Module):
    """A linear map and a frozen tower with a batch norm, as components."""

    def __init__(self, inputs: int = 3, outputs: int = 2) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.tower = nn.Sequential(nn.Linear(inputs, inputs), nn.BatchNorm1d(inputs))
        self.head = nn.Linear(inputs, outputs)
        self.double()

    def components(self):
        return {"tower": self.tower, "head": self.head}


class Squares:
    """Half the mean squared error of the head; ``extra`` is reported but is no loss."""

    trains = ("head",)

    def __init__(self, weights: torch.Tensor | None = None, poison: int | None = None, bad: float = math.nan):
        self.draw, self.poison, self.bad, self.seen = weights, poison, bad, []

    def weights(self, view):
        return self.draw

    def step(self, model, batch, schedule):
        self.seen.append(schedule)
        loss = 0.5 * (model.head(batch.x) - batch.y).square().mean()
        if self.poison == len(self.seen):
            loss = loss * self.bad
        return {"fit_loss": loss, "extra": torch.tensor(7.0)}


class Both(Squares):
    trains = ("tower", "head")

    def step(self, model, batch, schedule):
        return {"fit_loss": (model.head(model.tower(batch.x)) - batch.y).square().mean()}


def table(n: int = 12, seed: int = 0) -> Table:
    g = torch.Generator().manual_seed(seed)
    return Table(
        torch.randn(n, 3, generator=g, dtype=torch.float64),
        torch.randn(n, 2, generator=g, dtype=torch.float64),
    )


def run(
    model,
    objective,
    view,
    *,
    mu: float = 0.0,
    round: int = 1,
    rounds: int = 1,
    seed: int = 3,
    on_step=None,
    **local,
):
    cfg = build(LoopConfig, {**PLAIN, "batch_size": 4, **local})
    names = ("phase", round, "north")
    return train(
        model,
        objective,
        view,
        cfg,
        round=round,
        rounds=rounds,
        seed=seed,
        names=names,
        device=CPU,
        proximal_mu=mu,
        on_step=on_step,
    )


def gradient(W, b, x, y):
    """Of 1/2 mean over rows and outputs of (x W' + b - y)^2, by hand."""
    error = (x @ W.T + b - y) / y.size
    return error.T @ x, error.sum(0)


def weights_of(model) -> tuple[np.ndarray, np.ndarray]:
    return model.head.weight.detach().numpy().copy(), model.head.bias.detach().numpy().copy()


@pytest.mark.parametrize("mu", [0.0, 0.3, 2.0])
def test_fedprox_steps_are_w_minus_lr_times_g_plus_mu_times_w_minus_w0(mu):
    model, view, lr = Line(), table(), 0.2
    W0, b0 = W, b = weights_of(model)
    done = run(model, Squares(), view, mu=mu, steps=6, lr=lr)
    losses = []
    for chosen in view.asked:
        x, y = view.x[chosen].numpy(), view.y[chosen].numpy()
        losses.append(0.5 * ((x @ W.T + b - y) ** 2).mean())
        gW, gb = gradient(W, b, x, y)
        W, b = W - lr * (gW + mu * (W - W0)), b - lr * (gb + mu * (b - b0))
    found_W, found_b = weights_of(model)
    np.testing.assert_allclose(found_W, W, rtol=1e-12)
    np.testing.assert_allclose(found_b, b, rtol=1e-12)
    assert len(view.asked) == done.steps == 6 and done.items == 12 and done.seconds > 0
    assert done.losses["fit_loss"] == pytest.approx(np.mean(losses), rel=1e-6)  # the fit, without the proximal term
    assert done.losses["extra"] == 7.0


def test_the_proximal_term_pulls_towards_the_start():
    def distance(mu: float) -> float:
        model = Line()
        W0, _ = weights_of(model)
        run(model, Squares(), table(), mu=mu, steps=40, lr=0.2)
        return float(np.linalg.norm(weights_of(model)[0] - W0))

    far, near, nearest = distance(0.0), distance(0.5), distance(4.0)
    assert far > 1.5 * near > 1.5 * nearest > 0


def test_momentum_warm_up_and_cosine_act_on_the_steps_as_written():
    """SGD with momentum: u = m u + g, w = w - lr_t u, with lr_t from the formula of the whole run."""
    model, view = Line(), table()
    W, b = weights_of(model)
    run(model, Squares(), view, steps=3, lr=0.1, momentum=0.8, warmup=1.5, decay="cosine", round=2, rounds=4)
    u, v = np.zeros_like(W), np.zeros_like(b)
    for step, chosen in enumerate(view.asked):
        gW, gb = gradient(W, b, view.x[chosen].numpy(), view.y[chosen].numpy())
        at = 1 + (step + 0.5) / 3  # rounds elapsed at the middle of the step
        lr = 0.1 * at / 1.5 if at < 1.5 else 0.1 * 0.5 * (1 + math.cos(math.pi * (at - 1.5) / 2.5))
        u, v = 0.8 * u + gW, 0.8 * v + gb
        W, b = W - lr * u, b - lr * v
    np.testing.assert_allclose(weights_of(model)[0], W, rtol=1e-12)


def test_adamw_is_the_algorithm_of_loshchilov_and_hutter():
    """Decoupled decay on the matrix, none on the bias; b1 0.9, b2 0.999, eps 1e-8, bias-corrected."""
    model, view, lr, decay = Line(), table(), 0.01, 0.1
    parts = [[p, np.zeros_like(p), np.zeros_like(p)] for p in weights_of(model)]
    run(model, Squares(), view, steps=5, lr=lr, weight_decay=decay, optimizer="adamw")
    for t, chosen in enumerate(view.asked, start=1):
        x, y = view.x[chosen].numpy(), view.y[chosen].numpy()
        gradients = gradient(parts[0][0], parts[1][0], x, y)
        for number, (part, g) in enumerate(zip(parts, gradients)):
            p, m, v = part
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            p = p * (1 - lr * (decay if number == 0 else 0))
            p = p - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            part[:] = p, m, v
    np.testing.assert_allclose(weights_of(model)[0], parts[0][0], rtol=1e-10)
    np.testing.assert_allclose(weights_of(model)[1], parts[1][0], rtol=1e-10)


def test_clipping_bounds_the_whole_step_proximal_term_included():
    model, view = Line(), table()
    W0, b0 = weights_of(model)
    run(model, Squares(), view, steps=1, lr=0.5, clip_norm=1e-3)
    W, b = weights_of(model)
    assert math.hypot(np.linalg.norm(W - W0), np.linalg.norm(b - b0)) == pytest.approx(0.5e-3, rel=1e-3)
    positions = []
    model = Line()

    def keep(*_):
        positions.append(np.concatenate([w.ravel() for w in weights_of(model)]))

    run(model, Squares(), view, steps=12, lr=1.0, clip_norm=0.02, mu=50.0, on_step=keep)
    assert max(np.linalg.norm(b - a) for a, b in itertools.pairwise(positions)) <= 0.02 * (1 + 1e-3)


def test_only_matrices_are_decayed_not_biases_norms_tokens_or_positions():
    """With a gradient of zero AdamW only decays: a tensor is either times (1 - lr * decay) or as it was."""
    vit = {
        "name": "vit",
        "image_size": 32,
        "patch": 8,
        "width": 32,
        "depth": 1,
        "heads": 2,
        "positions": "learned",
    }
    objective = configure("models.objectives", {"name": "diagnosis", "findings": FINDINGS, "size": 32}).build()
    model = initial_model(ModelConfig(vision=vit), [objective], seed=0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.5)

    class Still:
        trains = objective.trains

        def weights(self, view):
            return None

        def step(self, model, batch, schedule):
            return {"still_loss": sum((p * 0).sum() for p in model.parameters())}

    before = {n: v.clone() for n, v in model.state().items()}
    run(model, Still(), table(), steps=1, lr=0.1, weight_decay=0.5, optimizer="adamw")
    shrunk = {n for n, v in model.state().items() if not torch.equal(v, before[n])}
    for name in shrunk:
        torch.testing.assert_close(model.state()[name], before[name] * (1 - 0.1 * 0.5))
    modules = dict(model.named_modules())
    matrices = {
        f"{component}/{n + '.' if n else ''}weight"
        for component, module in model.components().items()
        for n, m in module.named_modules()
        if isinstance(m, nn.Linear | nn.Conv2d)
    }
    assert len(modules) > 10 and shrunk == matrices


def test_frozen_components_do_not_move_and_keep_their_statistics():
    model = Line()
    before = {n: v.clone() for n, v in model.state_dict().items()}
    run(model, Squares(), table(), steps=5, lr=0.1)
    after = model.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before if n.startswith("tower"))
    assert not torch.equal(before["head.weight"], after["head.weight"])
    assert not model.tower.training and not any(p.requires_grad for p in model.tower.parameters())
    run(model, Both(), table(), steps=5, lr=0.1)  # the control: trained, it moves, statistics too
    assert not torch.equal(before["tower.0.weight"], model.state_dict()["tower.0.weight"])
    assert not torch.equal(before["tower.1.running_mean"], model.state_dict()["tower.1.running_mean"])


def test_optimiser_state_does_not_outlive_the_round():
    """Two rounds with momentum are two fresh starts."""
    twice, view = Line(), table()
    for number in (1, 2):
        run(twice, Squares(), view, steps=2, lr=0.1, momentum=0.9, round=number, rounds=2)
    fresh, other = Line(), table()
    run(fresh, Squares(), other, steps=2, lr=0.1, momentum=0.9, round=1, rounds=2)
    copy = Line()
    copy.load_state_dict(fresh.state_dict())
    run(copy, Squares(), other, steps=2, lr=0.1, momentum=0.9, round=2, rounds=2)
    assert view.asked == other.asked
    assert torch.equal(copy.head.weight, twice.head.weight)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("poison", "steps"), [(1, 1), (3, 5), (7, 200)])
def test_a_loss_that_is_not_finite_ends_the_round(poison, steps, bad):
    objective = Squares(poison=poison, bad=bad)
    with pytest.raises(NonFiniteLoss, match=r"fit_loss is not finite.*lower lr or set clip_norm"):
        run(Line(), objective, table(), steps=steps, lr=1e-3)
    assert len(objective.seen) <= 50  # found long before the end


def test_every_step_is_told_and_sees_its_place_in_the_run():
    objective, told = Squares(), []
    run(Line(), objective, table(), steps=4, round=3, rounds=5, lr=0.1, on_step=lambda *a: told.append(a))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert objective.seen == [Schedule(round=3, rounds=5, step=i, steps=4) for i in range(4)]


@pytest.mark.parametrize(
    ("settings", "items", "steps"),
    [
        ({"epochs": 1}, 32, 4),
        ({"epochs": 1}, 33, 5),
        ({"epochs": 2}, 33, 9),
        ({"epochs": 0.5}, 32, 2),
        ({"epochs": 0.01}, 32, 1),
        ({"epochs": 1.1, "batch_size": 1}, 10, 11),
        ({"epochs": 1}, 3, 1),
        ({"steps": 7}, 3, 7),
    ],
)
def test_epochs_and_steps(settings, items, steps):
    assert build(LoopConfig, {"batch_size": 8, **settings}).steps_for(items) == steps


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_no_item_comes_twice_before_every_item_came_once(items, size, steps, seed):
    drawn = list(batches(items, size, steps, None, stream(seed, "order")))
    assert [len(b) for b in drawn] == [size] * steps
    flat = torch.cat(drawn).tolist()
    for start in range(0, len(flat), items):
        chunk = flat[start : start + items]
        assert len(set(chunk)) == len(chunk) and set(chunk) <= set(range(items))
        assert len(chunk) < items or set(chunk) == set(range(items))


def test_one_epoch_reads_every_item_once_and_the_next_in_another_order():
    view = table(12)
    run(Line(), Squares(), view, epochs=2, lr=0.1)
    first, second = (list(itertools.chain(*view.asked[i : i + 3])) for i in (0, 3))
    assert sorted(first) == sorted(second) == list(range(12)) and first != second


def streams(monkeypatch, names: tuple, seed: int = 3) -> tuple[list, list]:
    """What one round draws for the order of its items, and what its steps find in the global generator."""
    view, drawn, objective = table(12), [], Squares()
    step = objective.step
    monkeypatch.setattr(objective, "step", lambda *a: (drawn.append(torch.rand(3).tolist()), step(*a))[1])
    cfg = build(LoopConfig, {**PLAIN, "batch_size": 4, "steps": 3, "lr": 0.1})
    train(Line(), objective, view, cfg, round=1, rounds=1, seed=seed, names=names, device=CPU)
    return view.asked, drawn


def test_order_and_augmentation_each_have_a_stream_by_seed_phase_round_and_site(monkeypatch):
    names = [("p", 1, "a"), ("p", 1, "b"), ("p", 2, "a"), ("q", 1, "a")]
    found = [streams(monkeypatch, n) for n in names] + [streams(monkeypatch, names[0], seed=4)]
    orders, draws = zip(*found)
    for kind in (orders, draws):
        assert len({str(one) for one in kind}) == len(found)
    torch.manual_seed(77)
    assert streams(monkeypatch, names[0]) == found[0]


def test_weighted_draws_come_in_proportion_and_with_replacement():
    weights = torch.tensor([0.0, 1.0, 3.0, 6.0])
    drawn = torch.cat(list(batches(4, 100, 200, weights, stream(0, "order"))))
    shares = torch.bincount(drawn, minlength=4).double() / len(drawn)
    for share, want in zip(shares.tolist(), [0.0, 0.1, 0.3, 0.6]):
        assert share == pytest.approx(want, abs=5 * math.sqrt(max(want * (1 - want), 0) / len(drawn)) + 1e-12)
    view = table(12)
    run(Line(), Squares(weights=torch.eye(12)[4]), view, steps=2, lr=0.1)
    assert view.asked == [[4] * 4] * 2


@pytest.mark.parametrize("decay", ["constant", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 2.0])
def test_the_rate_is_the_formula_and_the_same_however_rounds_are_cut(decay, warmup):
    """4 rounds of 6 steps, and one machine's 24 steps of the same 4 rounds' worth of training."""
    cfg = build(LoopConfig, {"steps": 6, "lr": 0.3, "warmup": warmup, "decay": decay})
    found = [learning_rate(cfg, Schedule(r, 4, s, 6)) for r in range(1, 5) for s in range(6)]
    for number, rate in enumerate(found):
        t = (number + 0.5) / 6
        if t < warmup:
            want = 0.3 * t / warmup
        elif decay == "constant":
            want = 0.3
        else:
            want = 0.15 * (1 + math.cos(math.pi * (t - warmup) / (4 - warmup)))
        assert rate == pytest.approx(want, rel=1e-12)
    assert max(found) <= 0.3 and min(found) > 0
    assert [Schedule(r, 4, s, 6).elapsed for r in (1, 3) for s in (0, 3)] == [0.0, 0.5, 2.0, 2.5]
    assert Schedule(3, 4, 3, 6).progress == 0.625


def test_a_warm_up_longer_than_the_run_never_arrives():
    cfg = build(LoopConfig, {"steps": 2, "lr": 1.0, "warmup": 10})
    assert learning_rate(cfg, Schedule(4, 4, 1, 2)) == pytest.approx(0.375)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "epochs None and steps None: give exactly one"),
        ({"epochs": 1, "steps": 2}, "epochs 1.0 and steps 2: give exactly one"),
        ({"epochs": 0}, "epochs 0.0"),
        ({"steps": 0}, "steps 0"),
        ({"steps": 1, "batch_size": 0}, "batch_size 0"),
        ({"steps": 1, "lr": -1}, "lr -1.0"),
        ({"steps": 1, "lr": math.inf}, "lr"),
        ({"steps": 1, "clip_norm": math.nan}, "clip_norm"),
        ({"steps": 1, "weight_decay": -0.1}, "weight_decay -0.1"),
        ({"steps": 1, "warmup": -1}, "warmup -1.0"),
        ({"steps": 1, "threads": -1}, "threads -1"),
        ({"steps": 1, "precision": "float8"}, "precision"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(values, said):
    with pytest.raises(ConfigError, match=said):
        build(LoopConfig, values)


def test_threads_are_set_for_the_round_and_given_back():
    before, seen = torch.get_num_threads(), []
    run(
        Line(),
        Squares(),
        table(),
        steps=1,
        lr=0.1,
        threads=before + 1,
        on_step=lambda *_: seen.append(torch.get_num_threads()),
    )
    run(Line(), Squares(), table(), steps=1, lr=0.1, on_step=lambda *_: seen.append(torch.get_num_threads()))
    with pytest.raises(NonFiniteLoss):
        run(Line(), Squares(poison=1), table(), steps=1, lr=0.1, threads=before + 1)
    assert seen == [before + 1, before] and torch.get_num_threads() == before


def test_auto_precision_is_plain_on_the_cpu():
    assert pick_precision("auto", CPU) is None and pick_precision("float32", CPU) is None
    assert pick_precision("bfloat16", CPU) is torch.bfloat16 and pick_precision("float16", CPU) is torch.float16


# -- what an objective may ask of the loop beside a loss ---------------------------------------------------------------


def test_the_cosine_may_end_above_zero():
    cfg = build(LoopConfig, {"steps": 4, "lr": 1.0, "min_lr": 0.2, "warmup": 1})
    found = [learning_rate(cfg, Schedule(r, 3, s, 4)) for r in (1, 2, 3) for s in range(4)]
    want = [(0.5 + s) / 4 for s in range(4)]
    want += [0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * ((s + 0.5) / 4) / 2)) for s in range(8)]
    assert found == pytest.approx(want, rel=1e-12)
    with pytest.raises(ConfigError, match=r"min_lr 2\.0 and lr 1\.0"):
        build(LoopConfig, {"steps": 1, "lr": 1.0, "min_lr": 2.0})


def test_clipping_each_tensor_by_itself():
    model, view, most = Line(), table(), 0.05
    W, b = weights_of(model)
    run(model, Squares(), view, steps=1, lr=1.0, clip_norm=most, clip="each")
    gW, gb = gradient(W, b, view.x[view.asked[0]].numpy(), view.y[view.asked[0]].numpy())
    assert np.linalg.norm(gW) > most and np.linalg.norm(gb) > most
    scale = lambda g: min(1.0, most / (np.linalg.norm(g) + 1e-6))
    np.testing.assert_allclose(weights_of(model)[0], W - scale(gW) * gW, rtol=1e-10)
    np.testing.assert_allclose(weights_of(model)[1], b - scale(gb) * gb, rtol=1e-10)


class InParts(Squares):
    """The same loss, film by film; notes when a part's graph is still alive as the next is asked for."""

    def step(self, model, batch, schedule):
        self.seen.append(schedule)
        return self._parts(model, batch)

    def _parts(self, model, batch):
        for i in range(len(batch.x)):
            loss = 0.5 * (model.head(batch.x[i : i + 1]) - batch.y[i : i + 1]).square().mean() / len(batch.x)
            yield {"fit_loss": loss, "count": torch.tensor(1.0)}
            with pytest.raises(RuntimeError, match="backward through the graph a second time"):
                loss.backward()


def test_a_loss_in_parts_is_the_whole_loss():
    whole, parts = Line(), Line()
    one = run(whole, Squares(), table(), steps=5, lr=0.2, clip_norm=0.3)
    two = run(parts, InParts(), table(), steps=5, lr=0.2, clip_norm=0.3)
    torch.testing.assert_close(parts.head.weight, whole.head.weight, rtol=0, atol=1e-14)
    assert two.losses["fit_loss"] == pytest.approx(one.losses["fit_loss"], rel=1e-6)
    assert two.losses["count"] == 4  # parts of a step add up, steps are averaged


class Guided(Squares):
    """Two batches at the first step of the schedule, one at the second, every second one with a loss of its own."""

    trains_here = ("tower",)

    def __init__(self):
        super().__init__()
        self.told: list = []

    def begin(self, model, schedule, kept):
        self.told.append(("begin", schedule, kept))

    def order(self, view, local, schedule, generator):
        self.told.append(("order", schedule.round, local.batch_size))
        return Order(2, [(0, torch.tensor([1, 2])), (0, torch.tensor([3])), (1, torch.tensor([0, 4, 5]))])

    def after_step(self, model, batch, schedule):
        self.told.append(("after", len(batch.x), schedule.step))

    def notes(self, view, min_cell):
        return [Result("said", None, float(min_cell))]

    def step(self, model, batch, schedule):
        losses = super().step(model, batch, schedule)
        return losses if len(batch.x) > 1 else {"other_loss": losses["fit_loss"]}


def test_an_objective_may_arrange_its_batches_follow_its_steps_and_speak_at_the_end():
    objective, view = Guided(), table()
    cfg = build(LoopConfig, {**PLAIN, "batch_size": 4, "steps": 9, "lr": 0.1})
    done = train(Line(), objective, view, cfg, round=2, rounds=3, seed=0, names=("x",), device=CPU, kept=ALL,
                 min_cell=7)  # fmt: skip
    assert view.asked == [[1, 2], [3], [0, 4, 5]]
    assert objective.told == [
        ("order", 2, 4),
        ("begin", Schedule(2, 3, 0, 2), ALL),
        ("after", 2, 0),
        ("after", 1, 0),
        ("after", 3, 1),
    ]
    assert [s.step for s in objective.seen] == [0, 0, 1] and {s.steps for s in objective.seen} == {2}
    assert done.steps == 3 and set(done.losses) == {"fit_loss", "other_loss", "extra"}
    assert [(n.metric, n.value) for n in done.notes] == [("said", 7.0)]


def test_components_that_stay_are_trained_and_are_not_held_by_the_proximal_term():
    model = Line()

    class Pull(Squares):
        trains_here = ("tower",)

        def step(self, model, batch, schedule):
            return {"fit_loss": sum((p**2).sum() for p in (model.tower[0].weight, model.head.weight)) / 2}

    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    run(model, Pull(), table(), steps=2, lr=0.5, mu=1.0)
    # Freely: w halves twice. Held: the second step is w - lr * (w + mu * (w - w0)).
    torch.testing.assert_close(model.tower[0].weight, start["tower.0.weight"] / 4)
    first = start["head.weight"] / 2
    torch.testing.assert_close(model.head.weight, first - 0.5 * (first + first - start["head.weight"]))
