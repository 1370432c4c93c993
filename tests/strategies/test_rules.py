"""Every rule against float64 written from its paper, and against Flower's own where the definitions agree."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given
from hypothesis import strategies as st

from models.checkpoint import load, save
from models.config import ConfigError
from models.registry import configure, names
from strategies.rules._base import Rule, Update, weighted_mean

RULES = names("strategies.rules")
SHAPES = {"vision/w": (4, 3), "vision/b": (5,), "logit/t": ()}


NEEDED = {
    "average": {"allow_biased": True},
    **{name: {"trusted_aggregator": True} for name in ("stack", "fedex", "svd")},
}


def rule(name: str, **settings) -> Rule:
    settings = {**NEEDED.get(name, {}), **settings}
    return configure("strategies.rules", {"name": name, **settings}).build()


def start(dtype=torch.float32, seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {n: torch.randn(s, generator=g).to(dtype) for n, s in SHAPES.items()}


def replies(current, sites=("east", "north", "south"), seed: int = 1, scale: float = 0.1) -> list[Update]:
    g = torch.Generator().manual_seed(seed)
    weights = dict(zip(sites, (120.0, 7.0, 33.0, 1.0)))
    return [
        Update(
            s,
            {n: t + scale * torch.randn(t.shape, generator=g).to(t.dtype) for n, t in current.items()},
            weights[s],
        )
        for s in sites
    ]


def as_numpy(tensors) -> dict[str, np.ndarray]:
    return {n: t.double().numpy() for n, t in tensors.items()}


def averaged(updates) -> dict[str, np.ndarray]:
    return {
        n: np.average([u.tensors[n].double().numpy() for u in updates], axis=0, weights=[u.weight for u in updates])
        for n in updates[0].tensors
    }


def test_the_weighted_mean_is_numpys():
    current = start()
    updates = replies(current)
    found = weighted_mean(current, updates)
    for name, want in averaged(updates).items():
        assert found[name].dtype == torch.float64 and found[name].shape == current[name].shape
        np.testing.assert_allclose(found[name].numpy(), want, rtol=1e-14)


def test_the_weighted_mean_by_hand():
    current = {"a": torch.zeros(2)}
    updates = [
        Update("x", {"a": torch.tensor([1.0, 10.0])}, 3.0),
        Update("y", {"a": torch.tensor([5.0, -2.0])}, 1.0),
    ]
    assert weighted_mean(current, updates)["a"].tolist() == [2.0, 7.0]


def test_summing_is_in_float64():
    """A thousand sites whose float32 sum would lose what each adds."""
    current = {"a": torch.zeros(1)}
    updates = [Update(f"{i:04d}", {"a": torch.tensor([16777216.0 if i == 0 else 1.0])}, 1.0) for i in range(1000)]
    assert rule("mean").combine(current, updates)["a"].item() == np.float32((16777216 + 999) / 1000)


def flower_messages(updates) -> list:
    """The replies as Flower's strategies see them; its 0-dimensional arrays have shape (1,)."""
    out = []
    for update in updates:
        arrays = {n: Array(np.atleast_1d(t.numpy())) for n, t in update.tensors.items()}
        record = RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": update.weight})})
        out.append(SimpleNamespace(content=record, has_error=lambda: False, metadata=SimpleNamespace(src_node_id=1)))
    return out


class FourNodes:
    def get_node_ids(self):
        return [1, 2, 3, 4]


def flower_round(strategy, number: int, current: dict[str, np.ndarray], updates) -> dict[str, np.ndarray]:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = (
        1,
        1,
        1,
    )  # as a running ServerApp has them
    record = ArrayRecord({n: Array(np.atleast_1d(a)) for n, a in current.items()})
    strategy.configure_train(number, record, ConfigRecord({}), FourNodes())
    arrays, _ = strategy.aggregate_train(number, flower_messages(updates))
    return {n: a.numpy().reshape(current[n].shape) for n, a in arrays.items()}


def test_the_mean_is_flowers_fedavg():
    current = start(torch.float64)
    updates = replies(current)
    theirs = flower_round(flower.FedAvg(), 1, as_numpy(current), updates)
    ours = rule("mean").combine(current, updates)
    for name in current:
        np.testing.assert_allclose(ours[name].numpy(), theirs[name], rtol=1e-13)


class Literal:
    """The papers' algorithms on one flat float64 vector, written down as they stand there."""

    def __init__(self, name: str, lr: float, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3) -> None:
        self.name, self.lr, self.beta1, self.beta2, self.tau = name, lr, beta1, beta2, tau
        self.m, self.v = 0.0, None

    def step(self, x, mean):
        delta = mean - x
        if self.name == "fedavgm":  # Hsu et al.: v = beta v + delta, w = w + v
            self.m = self.beta1 * self.m + delta
            return x + self.lr * self.m
        if self.v is None:
            self.v = np.full_like(x, self.tau**2)  # Reddi et al., algorithm 2: v_{-1} >= tau^2
        self.m = self.beta1 * self.m + (1 - self.beta1) * delta
        if self.name == "fedadam":
            self.v = self.beta2 * self.v + (1 - self.beta2) * delta**2
        else:
            self.v = self.v - (1 - self.beta2) * delta**2 * np.sign(self.v - delta**2)
        return x + self.lr * self.m / (np.sqrt(self.v) + self.tau)


SETTINGS = {
    "fedavgm": ({"lr": 0.7, "beta": 0.8}, {"lr": 0.7, "beta1": 0.8}),
    "fedadam": ({"lr": 0.03, "beta1": 0.85, "beta2": 0.95, "tau": 0.01},) * 2,
    "fedyogi": ({"lr": 0.03, "beta1": 0.85, "beta2": 0.95, "tau": 0.01},) * 2,
}


@pytest.mark.parametrize("name", SETTINGS)
def test_server_optimisers_follow_their_papers_over_rounds(name):
    ours, literal = SETTINGS[name]
    made, want = rule(name, **ours), {n: Literal(name, **literal) for n in SHAPES}
    current = start(torch.float64)
    x = as_numpy(current)
    for number in range(6):
        updates = replies(current, seed=number, scale=0.001 if number % 2 else 1.0)  # both signs of Yogi's switch
        mean = averaged(updates)
        x = {n: want[n].step(x[n], mean[n]) for n in x}
        current = made.combine(current, updates)
        for n in x:
            np.testing.assert_allclose(current[n].numpy(), x[n], rtol=1e-11, atol=1e-13, err_msg=f"round {number} {n}")


@pytest.mark.parametrize(("lr", "beta"), [(1.0, 0.9), (0.5, 0.0), (0.3, 0.7)])
def test_fedavgm_is_flowers_over_rounds(lr, beta):
    made, theirs = (
        rule("fedavgm", lr=lr, beta=beta),
        flower.FedAvgM(server_learning_rate=lr, server_momentum=beta),
    )
    current = start(torch.float64)
    x = as_numpy(current)
    for number in range(1, 5):
        updates = replies(current, seed=number)
        x = flower_round(theirs, number, x, updates)
        current = made.combine(current, updates)
        for name in x:
            np.testing.assert_allclose(current[name].numpy(), x[name], rtol=1e-12)


@pytest.mark.parametrize("name", ["fedadam", "fedyogi"])
def test_adaptive_rules_are_flowers_but_for_its_start_and_its_bias_correction(name):
    """Flower starts v at 0, where the paper asks for tau^2 at least, and its FedAdam scales the step by
    Adam's bias correction (the exponent one too high), which algorithm 2 lacks. Both undone, they agree."""
    settings = {"beta1": 0.9, "beta2": 0.97}
    made = rule(name, lr=0.02, tau=0.01, **settings)
    kind = flower.FedAdam if name == "fedadam" else flower.FedYogi
    theirs = kind(eta=0.02, tau=0.01, beta_1=0.9, beta_2=0.97)
    current = start(torch.float64)
    theirs.v_t = {n: np.full(np.atleast_1d(t).shape, 0.01**2) for n, t in as_numpy(current).items()}
    for number in range(1, 6):
        updates = replies(current, seed=number)
        before = as_numpy(current)
        stepped = flower_round(theirs, number, before, updates)
        correction = np.sqrt(1 - 0.97 ** (number + 1)) / (1 - 0.9 ** (number + 1)) if name == "fedadam" else 1.0
        current = made.combine(current, updates)
        for n in before:
            want = before[n] + (stepped[n] - before[n]) / correction
            np.testing.assert_allclose(current[n].numpy(), want, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ["fedadam", "fedyogi"])
def test_flower_as_it_comes_does_differ(name):
    """The control of the test before: without undoing them, the differences are seen."""
    kind = flower.FedAdam if name == "fedadam" else flower.FedYogi
    current = start(torch.float64)
    updates = replies(current)
    theirs = flower_round(kind(eta=0.02, tau=0.01, beta_1=0.9, beta_2=0.97), 1, as_numpy(current), updates)
    ours = rule(name, lr=0.02, tau=0.01, beta1=0.9, beta2=0.97).combine(current, updates)
    assert np.abs(ours["vision/w"].numpy() - theirs["vision/w"]).max() > 1e-4


def test_momentum_without_memory_is_the_mean():
    current = start(torch.float64)
    updates = replies(current)
    ours, mean = rule("fedavgm", beta=0.0).combine(current, updates), rule("mean").combine(current, updates)
    for name in current:
        torch.testing.assert_close(ours[name], mean[name], rtol=1e-14, atol=1e-15)


def test_fedprox_averages_and_asks_the_sites_for_their_term():
    current = start()
    updates = replies(current)
    prox, mean = rule("fedprox", mu=0.25), rule("mean")
    assert prox.local() == {"proximal_mu": 0.25} and mean.local() == {}
    ours, theirs = prox.combine(current, updates), mean.combine(current, updates)
    assert all(torch.equal(ours[n], theirs[n]) for n in current)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_names_shapes_and_dtypes_are_those_of_the_reference(name, dtype):
    current = start(dtype)
    wide = [Update(u.site, {n: t.float() for n, t in u.tensors.items()}, u.weight) for u in replies(current)]
    out = rule(name).combine(current, wide)
    assert {n: (t.shape, t.dtype) for n, t in out.items()} == {n: (t.shape, t.dtype) for n, t in current.items()}
    assert all(torch.isfinite(t).all() for t in out.values())


@pytest.mark.parametrize("name", RULES)
def test_integer_and_boolean_tensors_are_copied_not_averaged(name):
    current = start() | {"steps": torch.tensor([6, 7]), "seen": torch.tensor([True, False])}
    updates = [
        Update(
            u.site,
            dict(u.tensors) | {"steps": torch.tensor([100, 100]), "seen": torch.tensor([False, True])},
            u.weight,
        )
        for u in replies(start())
    ]
    out = rule(name).combine(current, updates)
    assert torch.equal(out["steps"], current["steps"]) and torch.equal(out["seen"], current["seen"])
    assert out["steps"].dtype == torch.int64 and out["seen"].dtype == torch.bool
    assert out["steps"].data_ptr() != current["steps"].data_ptr()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])  # float32 alone would hide what float64 rounds
def test_who_answers_first_does_not_matter_bit_for_bit(name, dtype):
    current = start(dtype)
    updates = replies(current, sites=("east", "north", "south", "west"))
    outs = []
    for order in itertools.permutations(updates):
        made = rule(name)
        first = made.combine(current, order)
        outs.append(made.combine(first, order))
    assert len(outs) == 24
    assert all(torch.equal(out[n], outs[0][n]) for out in outs for n in current)


@pytest.mark.parametrize("name", RULES)
def test_replies_that_changed_nothing_change_nothing(name):
    current, made = start(), rule(name)
    for _ in range(3):
        still = [
            Update(s, {n: t.clone() for n, t in current.items()}, w) for s, w in (("a", 3.0), ("b", 7.0), ("c", 0.1))
        ]
        out = made.combine(current, still)
        assert all(torch.equal(out[n], current[n]) for n in current)


@pytest.mark.parametrize("name", RULES)
def test_neither_the_model_nor_a_reply_is_written_into(name):
    current = start()
    updates = replies(current)
    before = {n: t.clone() for n, t in current.items()}
    sent = [{n: t.clone() for n, t in u.tensors.items()} for u in updates]
    out = rule(name).combine(current, updates)
    for t in out.values():
        t.add_(1)
    assert all(torch.equal(current[n], before[n]) for n in current)
    assert all(torch.equal(u.tensors[n], s[n]) for u, s in zip(updates, sent) for n in current)


@pytest.mark.parametrize("name", RULES)
def test_the_scale_of_the_weights_does_not_matter(name):
    current = start(torch.float64)
    updates = replies(current)
    doubled = [Update(u.site, u.tensors, 2 * u.weight) for u in updates]
    one, other = rule(name).combine(current, updates), rule(name).combine(current, doubled)
    assert all(torch.equal(one[n], other[n]) for n in current)


@pytest.mark.parametrize("name", RULES)
def test_memory_saved_and_restored_goes_on_identically(name, tmp_path):
    straight, current = rule(name), start()
    for number in range(2):
        current = straight.combine(current, replies(current, seed=number))
    memory = {n: t.clone() for n, t in straight.memory.items()}
    resumed = rule(name)
    if memory:
        save(tmp_path / "server.safetensors", memory)
        resumed.memory = load(tmp_path / "server.safetensors")
    one = other = current
    for number in range(2, 5):
        updates = replies(current, seed=number)
        one, other = straight.combine(one, updates), resumed.combine(other, updates)
        assert all(torch.equal(one[n], other[n]) for n in current)
    if memory:  # the control: without its memory it goes elsewhere
        updates = replies(current, seed=9)
        forgetful = rule(name).combine(one, updates)
        assert any(not torch.equal(forgetful[n], t) for n, t in resumed.combine(one, updates).items())


@pytest.mark.parametrize("name", RULES)
def test_nothing_to_combine_is_told(name):
    with pytest.raises(ValueError, match="no update was accepted"):
        rule(name).combine(start(), [])


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("weights", [(0.0, 0.0), (3.0, -3.0), (1.0, -4.0), (float("nan"), 1.0)])
def test_weights_that_sum_to_nothing_are_told(name, weights):
    current = start()
    updates = [Update(f"s{i}", current, w) for i, w in enumerate(weights)]
    with pytest.raises(ValueError, match="must sum to more than 0"):
        rule(name).combine(current, updates)


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=5), st.integers(0, 1000))
def test_the_mean_lies_between_its_parts(weights, seed):
    current = {"a": torch.zeros(6, dtype=torch.float64)}
    g = torch.Generator().manual_seed(seed)
    updates = [
        Update(f"s{i}", {"a": torch.randn(6, generator=g, dtype=torch.float64)}, w) for i, w in enumerate(weights)
    ]
    stacked = torch.stack([u.tensors["a"] for u in updates])
    out = rule("mean").combine(current, updates)["a"]
    assert torch.all(out >= stacked.amin(0) - 1e-12) and torch.all(out <= stacked.amax(0) + 1e-12)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "fedprox", "mu": 0}, "mu 0.0: must be positive"),
        ({"name": "fedavgm", "beta": 1.0}, "beta 1.0"),
        ({"name": "fedavgm", "lr": 0}, "lr 0.0"),
        ({"name": "fedadam", "tau": 0}, "tau 0.0: must be positive"),
        ({"name": "fedyogi", "beta2": 1}, r"beta2 1.0: must be in \[0, 1\)"),
        ({"name": "fedyogi", "beta1": -0.1}, "beta1 -0.1"),
        ({"name": "fedadam", "lr": float("nan")}, "lr"),
        ({"name": "mean", "lr": 1}, "lr: unknown key"),
    ],
)
def test_a_bad_setting_is_refused_in_words(values, said):
    with pytest.raises(ConfigError, match=said):
        configure("strategies.rules", values)
