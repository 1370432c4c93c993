"""Multi-label diagnosis: the loss and its gradient from the definition, and what balancing really draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.config import ConfigError, build
from models.model import ModelConfig, initial_model
from models.objectives import Schedule
from models.objectives.diagnosis import Config, balance_weights, masked_bce
from models.studies.schema import Label
from models.studies.store import Store
from models.studies.views import LabelledBatch
from tests.world import FINDINGS, write_store

P, A, U, N = Label.PRESENT, Label.ABSENT, Label.UNCERTAIN, Label.UNMENTIONED
SCHEDULE = Schedule(round=1, rounds=1, step=0, steps=1)


def literal(logits, labels, smoothing: float) -> tuple[float, np.ndarray]:
    """The loss and its gradient, entry by entry: -t log s - (1 - t) log(1 - s), mean over what is known."""
    total, count, gradient = 0.0, 0, np.zeros_like(logits, dtype=np.float64)
    for i, j in np.ndindex(*labels.shape):
        if labels[i, j] in (P, A):
            count += 1
    for i, j in np.ndindex(*labels.shape):
        if labels[i, j] not in (P, A):
            continue
        target = 1 - smoothing if labels[i, j] == P else smoothing
        s = 1 / (1 + math.exp(-logits[i, j]))
        total -= target * math.log(s) + (1 - target) * math.log1p(-s)
        gradient[i, j] = (s - target) / count
    return total / max(count, 1), gradient


@given(
    st.integers(0, 10_000),
    st.integers(1, 6),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.05, 0.3]),
)
def test_the_loss_and_its_gradient_are_the_definition(seed, films, findings, smoothing):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (films, findings))
    labels = rng.choice([P, A, U, N], (films, findings))
    x = torch.tensor(logits, requires_grad=True)
    loss = masked_bce(x, torch.tensor(labels, dtype=torch.int8), smoothing)
    loss.backward()
    want, gradient = literal(logits, labels, smoothing)
    assert loss.detach().item() == pytest.approx(want, rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(x.grad.numpy(), gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("wild", [math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("label", [U, N])
def test_what_is_not_known_takes_no_part_however_wild_its_logit(wild, label):
    labels = torch.tensor([[P, label], [A, P]], dtype=torch.int8)
    x = torch.tensor([[0.3, wild], [-0.2, 1.0]], dtype=torch.float64, requires_grad=True)
    loss = masked_bce(x, labels)
    loss.backward()
    tame = torch.tensor([[0.3, 0.0], [-0.2, 1.0]], dtype=torch.float64)
    loss = loss.detach()
    assert float(loss) == float(masked_bce(tame, labels)) and math.isfinite(float(loss))
    assert x.grad[0, 1] == 0 and torch.isfinite(x.grad).all() and x.grad.abs().sum() > 0


def test_a_batch_that_knows_nothing_has_loss_zero_and_no_gradient():
    x = torch.randn(3, 2, requires_grad=True)
    loss = masked_bce(x, torch.tensor([[U, N]] * 3, dtype=torch.int8))
    loss.backward()
    assert float(loss.detach()) == 0 and torch.equal(x.grad, torch.zeros(3, 2))


def test_smoothing_moves_the_best_answer_off_the_wall():
    """The loss is least where the probability is the smoothed target."""
    x = torch.linspace(-3, 3, 601, dtype=torch.float64)[:, None]
    for label, want in ((P, 0.9), (A, 0.1)):
        losses = torch.stack([masked_bce(v[None], torch.tensor([[label]]), 0.1) for v in x])
        assert float(x[losses.argmin()].sigmoid()) == pytest.approx(want, abs=1e-3)


def labelled(rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int8)


def test_one_finding_is_drawn_present_and_absent_equally_often():
    labels = labelled([[P]] * 3 + [[A]] * 17 + [[U]] * 2)
    weights = balance_weights(labels)
    assert weights.mean() == pytest.approx(1.0) and weights.dtype == torch.float64
    assert weights[:3].sum() == pytest.approx(float(weights[3:20].sum()))
    assert torch.equal(weights[:3], weights[:1].expand(3)) and torch.equal(weights[3:20], weights[3:4].expand(17))


def mixture(labels: torch.Tensor) -> np.ndarray:
    """Probability of each film, by walking the tree: a finding, an answer, a film."""
    table = labels.numpy()
    usable = [f for f in range(table.shape[1]) if (table[:, f] == P).any() and (table[:, f] == A).any()]
    chance = np.zeros(len(table))
    for finding in usable:
        for answer in (P, A):
            films = np.flatnonzero(table[:, finding] == answer)
            for film in films:
                chance[film] += 1 / len(usable) / 2 / len(films)
    return chance


@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(1, 5))
def test_a_draw_is_a_finding_then_an_answer_then_a_film(seed, films, findings):
    rng = np.random.default_rng(seed)
    labels = labelled(rng.choice([P, A, U, N], (films, findings), p=[0.2, 0.6, 0.1, 0.1]))
    weights, chance = balance_weights(labels).numpy(), mixture(labels)
    if not chance.any():
        assert np.array_equal(weights, np.ones(films))
        return
    known = chance > 0
    np.testing.assert_allclose(weights[known] / weights[known].sum(), chance[known], rtol=1e-12)
    assert np.allclose(weights[~known], weights[known].min())
    assert weights.mean() == pytest.approx(1.0)


def test_of_several_independent_findings_each_is_half_in_its_own_draws_only():
    """What the module says of F findings: (1/F) * 1/2 + (F-1)/F * prevalence."""
    rng = np.random.default_rng(0)
    labels = labelled(np.where(rng.random((40_000, 4)) < [0.05, 0.2, 0.5, 0.7], P, A))
    weights = balance_weights(labels)
    for finding, prevalence in enumerate([0.05, 0.2, 0.5, 0.7]):
        share = float(weights[labels[:, finding] == P].sum() / weights.sum())
        assert share == pytest.approx(0.25 * 0.5 + 0.75 * prevalence, abs=0.01)


def test_a_finding_with_one_answer_has_nothing_to_balance():
    both = labelled([[P, P], [A, P], [A, P], [A, U]])
    assert torch.equal(balance_weights(both), balance_weights(both[:, :1]))
    assert torch.equal(balance_weights(labelled([[P], [P], [U]])), torch.ones(3, dtype=torch.float64))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store.open(write_store(tmp_path_factory.mktemp("world") / "store", patients=6))


def made(channels: int = 1, **changes):
    objective = build(Config, {"findings": FINDINGS, "size": 32, "augment": None, **changes}).build()
    vit = {
        "name": "vit",
        "image_size": 32,
        "patch": 8,
        "width": 32,
        "depth": 1,
        "heads": 2,
        "channels": channels,
    }
    return objective, initial_model(ModelConfig(vision=vit), [objective], seed=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_step_is_the_loss_of_its_logits_on_the_films_over_255(store, channels):
    objective, model = made(channels, label_smoothing=0.1)
    view = objective.open(store, np.arange(len(store)))
    batch = view.batch(torch.arange(5))
    losses = objective.step(model.eval(), batch, SCHEDULE)
    assert list(losses) == ["bce_loss"]
    seen = (batch.images.numpy() / 255).astype(np.float32).repeat(channels, axis=1)
    features = model.vision(torch.from_numpy(seen))
    layer = model.heads["diagnosis"][1]
    logits = (features @ layer.weight.T + layer.bias).detach().double().numpy()
    np.testing.assert_allclose(objective.logits(model, batch.images).detach().numpy(), logits, atol=1e-5)
    want, _ = literal(logits, batch.labels.numpy(), 0.1)
    assert float(losses["bce_loss"]) == pytest.approx(want, rel=1e-5)


def test_it_trains_the_tower_and_its_own_head_and_gradients_reach_both(store):
    objective, model = made()
    assert objective.trains == ("vision", "head.diagnosis")
    view = objective.open(store, np.arange(len(store)))
    objective.step(model, view.batch(torch.arange(8)), SCHEDULE)["bce_loss"].backward()
    for component in objective.trains:
        assert all(p.grad is not None for p in model.components()[component].parameters()), component
        assert any(p.grad.abs().sum() > 0 for p in model.components()[component].parameters()), component


def test_a_fresh_head_says_one_half_for_every_finding(store):
    objective, model = made()
    probability = objective.logits(model.eval(), torch.randint(0, 256, (16, 1, 32, 32), dtype=torch.uint8)).sigmoid()
    assert probability.shape == (16, len(FINDINGS))
    assert (probability - 0.5).abs().max() < 0.1


def test_the_weights_are_those_of_the_view_or_none(store):
    balanced, _ = made(balance=True)
    plain, _ = made(balance=False)
    view = balanced.open(store, np.arange(len(store)))
    assert torch.equal(balanced.weights(view), balance_weights(torch.as_tensor(view.labels)))
    assert plain.weights(view) is None


def test_augmentation_acts_in_training_only(store):
    objective, model = made(augment={"brightness": 0.5})
    batch = LabelledBatch(torch.full((4, 1, 32, 32), 128, dtype=torch.uint8), labelled([[P, A]] * 4))
    with torch.no_grad():
        torch.manual_seed(0)
        first = objective.step(model.eval(), batch, SCHEDULE)["bce_loss"]
        second = objective.step(model, batch, SCHEDULE)["bce_loss"]
        assert first != second
        assert torch.equal(objective.logits(model, batch.images), objective.logits(model, batch.images))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_films_are_augmented_in_full_precision_whatever_the_tower_computes_in(dtype):
    objective, model = made(augment={"degrees": 20.0, "translate": 0.2})
    images = torch.randint(0, 256, (8, 1, 32, 32), dtype=torch.uint8)
    batch, seen = LabelledBatch(images, labelled([[P, A]] * 8)), []
    model.vision.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype):
        objective.step(model.eval(), batch, SCHEDULE)
    torch.manual_seed(0)
    want = objective.augment(images / 255)
    assert torch.equal(seen[0], want) and not torch.equal(want, images / 255)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"findings": []}, "findings: empty"),
        ({"findings": ["Edema", "Edema"]}, "stands twice"),
        ({"findings": ["edema!"]}, "findings: "),
        ({"label_smoothing": 0.5}, "label_smoothing 0.5"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"fit": "stretch"}, "fit: "),
        ({"augment": {"flipp": 1}}, r"augment\.flipp: unknown key; did you mean 'flip'"),
    ],
)
def test_a_bad_setting_is_refused_in_words(changes, said):
    with pytest.raises(ConfigError, match=said):
        build(Config, {"findings": ["Edema"], **changes})


def test_there_is_no_privacy_claim():
    assert Config(findings=("Edema",)).build().privacy is None
