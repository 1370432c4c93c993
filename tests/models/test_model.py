"""The model as named components."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.model import CxrModel, ModelConfig, build, initial_model
from models.registry import configure

VIT = {"name": "vit", "image_size": 32, "patch": 8, "width": 32, "depth": 1, "heads": 2}


def objective(findings=("Edema", "Cardiomegaly")):
    return configure("models.objectives", {"name": "diagnosis", "findings": findings, "size": 32}).build()


def model(tower=VIT, seed: int = 3) -> CxrModel:
    return initial_model(ModelConfig(vision=tower), [objective()], seed)


class Buffers(nn.Module):
    """A tower with everything that a state may hold."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 4
        self.norm = nn.BatchNorm1d(4)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("positions", torch.arange(6))
        self.register_buffer("seen", torch.tensor([True, False]))
        self.register_buffer("unsaved", torch.ones(3), persistent=False)


def test_names_are_component_slash_parameter():
    made = model()
    assert list(made.components()) == ["vision", "head.diagnosis"]
    state = made.state()
    want = {f"vision/{n}" for n, _ in made.vision.named_parameters()}
    want |= {f"head.diagnosis/{n}" for n, _ in made.heads["diagnosis"].named_parameters()}
    assert set(state) == want
    assert {n.split("/")[0] for n in made.state(["vision"])} == {"vision"}
    assert set(made.state(["head.diagnosis"])) | set(made.state(["vision"])) == set(state)
    assert made.state([]) == {}


def test_floating_point_buffers_travel_and_others_do_not():
    made = CxrModel(Buffers(), {})
    assert set(made.state()) == {
        "vision/scale",
        "vision/norm.weight",
        "vision/norm.bias",
        "vision/norm.running_mean",
        "vision/norm.running_var",
    }


def test_the_resnet_sends_its_statistics_but_not_its_counters():
    with torch.device("meta"):  # names only
        names = set(build(ModelConfig(vision={"name": "resnet50"}), [objective()]).state())
    assert "vision/layer1.0.bn1.running_var" in names
    assert not [n for n in names if "num_batches_tracked" in n]


def test_the_state_shares_memory_and_carries_no_gradient():
    made = model()
    name, value = next(iter(made.state().items()))
    parameter = made.vision.get_parameter(name.split("/")[1])
    assert value.data_ptr() == parameter.data_ptr() and not value.requires_grad


def test_load_is_the_inverse_of_state_across_dtypes():
    source, target = model(seed=1), model(seed=2)
    sent = {n: v.clone() for n, v in source.state().items()}
    assert any(not torch.equal(v, target.state()[n]) for n, v in sent.items())
    target.load(None, sent)
    assert all(torch.equal(v, target.state()[n]) for n, v in sent.items())
    target.load(None, {n: v.double() for n, v in sent.items()})
    assert all(v.dtype == torch.float32 for v in target.state().values())


def test_a_part_is_loaded_alone():
    source, target = model(seed=1), model(seed=2)
    before = {n: v.clone() for n, v in target.state(["head.diagnosis"]).items()}
    target.load(["vision"], source.state(["vision"]))
    assert all(torch.equal(v, source.state()[n]) for n, v in target.state(["vision"]).items())
    assert all(torch.equal(v, before[n]) for n, v in target.state(["head.diagnosis"]).items())


@pytest.mark.parametrize("mistake", ["missing", "extra", "shape", "broadcasts", "0-dim"])
def test_a_tensor_that_does_not_fit_changes_nothing(mistake):
    source, target = model(seed=1), model(seed=2)
    sent = {n: v.clone() for n, v in source.state().items()}
    last = list(sent)[-1]
    if mistake == "missing":
        del sent[last]
    elif mistake == "extra":
        sent["vision/other"] = torch.zeros(1)
    elif mistake == "shape":
        sent[last] = torch.zeros(3, 5, 7)
    elif mistake == "broadcasts":
        sent[last] = torch.zeros(1)
    else:
        sent[last] = torch.tensor(0.0)
    before = {n: v.clone() for n, v in target.state().items()}
    with pytest.raises(ValueError, match=r"fit the model|shape"):
        target.load(None, sent)
    assert all(torch.equal(v, before[n]) for n, v in target.state().items())


@pytest.mark.parametrize("method", ["state", "load"])
def test_an_unknown_component_is_named_with_the_known_ones(method):
    made = model()
    with pytest.raises(KeyError, match=r"no component head\.x, text; the model has vision, head\.diagnosis"):
        made.state(["text", "head.x", "vision"]) if method == "state" else made.load(["text", "head.x"], {})


def test_the_same_seed_is_the_same_start_whatever_happened_before():
    one = model(seed=5).state()
    torch.manual_seed(123)
    torch.randn(7)
    again, other = model(seed=5).state(), model(seed=6).state()
    assert all(torch.equal(one[n], again[n]) for n in one)
    assert any(not torch.equal(one[n], other[n]) for n in one)


def test_making_a_start_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    model(seed=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_two_phases_of_one_objective_share_their_head():
    made = build(ModelConfig(vision=VIT), [objective(), objective()])
    assert list(made.components()) == ["vision", "head.diagnosis"]
