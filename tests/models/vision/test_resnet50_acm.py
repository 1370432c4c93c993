"""ResNet-50 with ACM: where the modules stand, what they add, and that an objective and a federation train them."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.checkpoint import load
from models.config import ConfigError, build
from models.model import ModelConfig, initial_model
from models.objectives import Schedule
from models.objectives.diagnosis import Config as Diagnosis
from models.studies.store import Store
from models.vision import encode
from models.vision.acm import ACM
from models.vision.resnet50 import STAGES, Config, ResNet50
from tests.world import FINDINGS, federate, write_store

SMALL = {"name": "resnet50", "image_size": 32, "base": 8, "acm": {"groups": 4}}


def tower(**changes) -> ResNet50:
    """Small and lively: no norm's gain is zero."""
    torch.manual_seed(0)
    made = build(Config, {**SMALL, **changes}).build()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.0)
    return made


def places(made: ResNet50) -> list[str]:
    return [name.removesuffix(".acm") for name, module in made.named_modules() if isinstance(module, ACM)]


def test_it_has_the_published_number_of_parameters_less_the_inert_ones():
    """24,219,342 with the authors' 14-class convolution; two biases of 32 maps in each of 16 modules do nothing."""
    with torch.device("meta"):
        made = build(Config, {"channels": 3, "acm": {}}).build()
    head = 14 * 2048 + 14
    assert sum(p.numel() for p in made.parameters()) == 24_219_342 - head - 16 * 2 * 32
    assert len(places(made)) == 16


@pytest.mark.parametrize(
    ("at", "where"),
    [
        (["layer2", "layer3", "layer4"], [f"layer{s}.{i}" for s in (2, 3, 4) for i in range(STAGES[f"layer{s}"])]),
        (["layer1.2", "layer4"], ["layer1.2", "layer4.0", "layer4.1", "layer4.2"]),
        (["layer3.5", "layer3"], [f"layer3.{i}" for i in range(6)]),
    ],
)
def test_modules_stand_where_they_were_asked_for(at, where):
    made = tower(acm={"groups": 4, "at": at})
    assert places(made) == where
    assert torch.isfinite(made(torch.rand(2, 1, 32, 32))).all()


def test_without_it_nothing_changed():
    """Names, numbers and features of a tower without modules; a checkpoint of one loads into the other's rest."""
    plain, compared = tower(acm=None), tower()
    rest = {name: value for name, value in compared.state_dict().items() if ".acm." not in name}
    assert plain.state_dict().keys() == rest.keys()
    plain.load_state_dict(rest)
    x = torch.rand(2, 1, 32, 32)
    assert not torch.allclose(plain.eval()(x), compared.eval()(x), atol=1e-3)
    assert encode(plain, x)[1] == {} and not plain.own_losses


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("training", [True, False])
def test_a_block_is_the_residual_branch_compared_before_the_shortcut(norm, training):
    block = copy.deepcopy(tower(norm=norm).layer2[0]).double().train(training)
    apart = copy.deepcopy(block)
    x = torch.randn(3, 32, 8, 8, dtype=torch.float64)
    inside = F.relu(apart.bn2(apart.conv2(F.relu(apart.bn1(apart.conv1(x))))))
    branch, d = apart.acm(apart.bn3(apart.conv3(inside)))
    want = F.relu(branch + apart.downsample(x))
    found, correlation = block.compared(x)
    torch.testing.assert_close((found, correlation), (want, d), rtol=0, atol=1e-12)
    torch.testing.assert_close(block.bn3.state_dict(), apart.bn3.state_dict(), rtol=0, atol=1e-12)
    assert torch.equal(copy.deepcopy(apart).eval()(x), apart.eval().compared(x)[0])


def test_a_fresh_block_passes_its_input_on():
    block = build(Config, SMALL).build().layer1[1].eval()
    x = torch.rand(2, 32, 5, 5)
    y, d = block.compared(x)
    assert torch.equal(y, F.relu(x)) and torch.equal(d, torch.zeros(2))


@pytest.mark.parametrize("form", ["per_image", "official"])
def test_the_towers_loss_is_the_weighted_term_of_its_modules(form):
    made = tower(acm={"groups": 4, "weight": 0.3, "form": form}).eval()
    x, seen = torch.rand(3, 1, 32, 32), []
    for module in made.modules():
        if isinstance(module, ACM):
            module.register_forward_hook(lambda _, __, out: seen.append(out[1]))
    features, losses = encode(made, x)
    assert torch.equal(features, made(x)) and list(losses) == ["orthogonality_loss"]
    d = np.stack([t.detach().numpy() for t in seen[:16]])
    want = np.abs(d).sum(0).mean() if form == "per_image" else abs(d.sum(0).mean())
    assert float(losses["orthogonality_loss"].detach()) == pytest.approx(0.3 * want, rel=1e-5)


def test_with_weight_zero_there_is_no_loss():
    assert encode(tower(acm={"groups": 4, "weight": 0}), torch.rand(2, 1, 32, 32))[1] == {}


def test_with_groups_for_norms_an_image_is_alone_and_with_batch_norm_it_is_not():
    """What private training asks: features and losses of an image do not depend on the others of its batch."""
    x = torch.rand(3, 1, 32, 32, dtype=torch.float64)
    for norm, alone in (("group", True), ("batch", False)):
        made = tower(norm=norm).double().train()
        features, losses = encode(made, x)
        each = [encode(made, x[i : i + 1]) for i in range(3)] if alone else [encode(made, x[:2])]
        together = torch.cat([f for f, _ in each])
        assert torch.allclose(features[: len(together)], together, rtol=1e-9, atol=1e-9) == alone
        if alone:
            mean = sum(e["orthogonality_loss"] for _, e in each) / 3
            torch.testing.assert_close(losses["orthogonality_loss"], mean, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_diagnosis_trains_the_modules_by_its_own_loss_and_theirs(tmp_path, precision):
    store = Store.open(write_store(tmp_path / "store", patients=4))
    objective = build(Diagnosis, {"findings": FINDINGS, "size": 32, "augment": None}).build()
    model = initial_model(ModelConfig(vision=SMALL), [objective], seed=0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
    batch = objective.open(store, np.arange(len(store))).batch(torch.arange(8))
    with torch.autocast("cpu", precision, enabled=precision is not None):
        losses = objective.step(model.train(), batch, Schedule(round=1, rounds=1, step=0, steps=1))
    assert list(losses) == ["bce_loss", "orthogonality_loss"]
    losses["orthogonality_loss"].backward(retain_graph=True)
    for name, module in model.vision.named_modules():
        if isinstance(module, ACM) and not name.startswith(
            "layer4"
        ):  # whose maps have one position: nothing to compare
            assert module.attend.grad.abs().max() > 0, name
    sum(losses.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.vision.parameters())


def test_a_federation_trains_it(tmp_path):
    """Modules travel with the tower, their loss is reported by every site, and they moved."""
    run = federate(
        tmp_path,
        write_store(tmp_path / "store", patients=20),
        model__vision={**SMALL, "norm": "group"},
        phases__0__local={"steps": 4, "batch_size": 16, "lr": 0.01},
    )
    assert json.loads((run.path / "results.json").read_text())["status"] == "completed"
    reported = [x for x in run.lines("metrics.jsonl") if x["metric"] == "orthogonality_loss"]
    assert {x["site"] for x in reported} == {"a", "b", "c"} and all(x["value"] >= 0 for x in reported)
    final = load(run.checkpoints()[-1] / "model.safetensors")
    objective = build(Diagnosis, {"findings": FINDINGS, "size": 32, "augment": None}).build()
    start = initial_model(ModelConfig(vision={**SMALL, "norm": "group"}), [objective], seed=3).state()
    moved = [name for name in final if ".acm." in name and not torch.equal(final[name], start[name])]
    assert len([name for name in final if ".acm." in name]) == 16 * 5
    assert "vision/layer1.0.acm.attend" in moved and len(moved) > 40


def test_imagenet_normalisation_is_of_the_input():
    made = tower(channels=3, normalise="imagenet").eval()
    plain = tower(channels=3).eval()
    plain.load_state_dict(made.state_dict())
    x = torch.rand(2, 3, 32, 32)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    torch.testing.assert_close(made(x), plain((x - mean) / std))
    assert not torch.allclose(made(x), plain(x), atol=1e-3)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"acm": {"at": ["layer5"]}}, "acm.at 'layer5': no such stage or block; stages are layer1"),
        ({"acm": {"at": ["layer2.4"]}}, "acm.at 'layer2.4'"),
        ({"acm": {"at": ["layer2."]}}, "acm.at 'layer2.'"),
        ({"acm": {}, "base": 8}, "base 8 and acm.groups 32: .* 16 in layer1; try 16"),
        ({"acm": {"group": 3}}, "acm.group: unknown key; did you mean 'groups'"),
        ({"normalise": "imagenet", "channels": 1}, "normalise 'imagenet' and channels 1"),
    ],
)
def test_what_cannot_be_is_refused_in_words(values, said):
    with pytest.raises(ConfigError, match=said):
        build(Config, values)


def test_groups_need_only_fit_where_there_is_a_module():
    assert places(build(Config, {"base": 8, "acm": {"at": ["layer2"]}}).build())[0] == "layer2.0"
