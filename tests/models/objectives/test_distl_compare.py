"""What views are compared through: films told apart, and standardised layers, against definitions written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.config import build
from models.model import ModelConfig, furnish, initial_model
from models.objectives import Schedule
from models.objectives._distl_heads import Projection
from models.objectives._distl_loss import contrast_loss
from models.objectives.distl import Config

SMALL = {
    "findings": ("Edema",),
    "size": 32,
    "local_size": 16,
    "local_crops": 3,
    "prototype_hidden": 20,
    "bottleneck": 12,
    "head_hidden": (),
    "compare": "films",
    "student_temperature": 0.2,
}
VISION = {"name": "vit", "image_size": 32, "patch": 8, "width": 24, "depth": 2, "heads": 2}


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(made, dim=-1)


def literal_contrast(student, teacher, temperature: float) -> float:
    """Every pair of views, every film, every other film, one at a time."""
    V, B, _ = student.shape
    total, terms = 0.0, 0
    for i in range(len(teacher)):
        for j in range(V):
            if i == j:
                continue
            terms += 1
            for b in range(B):
                like = [math.exp(float(student[j, b] @ teacher[i, c]) / temperature) for c in range(B)]
                total -= math.log(like[b] / sum(like)) / B
    return total / terms


@pytest.mark.parametrize("cuts", [[(0, 5)], [(0, 2), (2, 5)], [(0, 1), (1, 3), (3, 5)]])
@pytest.mark.parametrize("films", [[(0, 7)], [(0, 3), (3, 7)]])
def test_films_are_told_apart_as_defined_whatever_the_chunks(cuts, films):
    student, teacher = unit(5, 7, 6), unit(2, 7, 6, seed=1)
    found = sum(
        contrast_loss(student[a:b, c:d], teacher, 0.2, a, 5, c) * (d - c) / 7 for a, b in cuts for c, d in films
    )
    assert found.item() == pytest.approx(literal_contrast(student, teacher, 0.2), rel=1e-12)


def test_another_film_another_pair_or_another_temperature_is_another_loss():
    student, teacher = unit(4, 5, 6), unit(2, 5, 6, seed=1)
    want = literal_contrast(student, teacher, 0.2)
    for wrong in (
        contrast_loss(student, teacher.roll(1, dims=1), 0.2, 0, 4),
        contrast_loss(student, teacher, 0.2, 2, 6),  # as if a view were never compared with itself
        contrast_loss(student, teacher, 0.1, 0, 4),
    ):
        assert abs(wrong.item() - want) > 1e-3
    assert contrast_loss(student[:, :1], teacher[:, :1], 0.2, 0, 4).item() == 0  # one film is found at once


def test_the_same_vectors_for_every_film_cost_the_logarithm_of_their_number():
    same = unit(1, 1, 6).expand(2, 9, 6)
    assert contrast_loss(same, same, 0.2, 0, 2).item() == pytest.approx(math.log(9), rel=1e-12)
    apart = torch.eye(9, dtype=torch.float64).expand(2, 9, 9)
    assert contrast_loss(apart, apart, 0.01, 0, 2).item() < 1e-12


def test_half_precision_vectors_are_compared_in_single():
    student, teacher = unit(2, 40, 64).bfloat16(), unit(2, 40, 64, seed=1)
    want = literal_contrast(student.double(), teacher, 0.2)
    assert contrast_loss(student, teacher.float(), 0.2, 0, 2).item() == pytest.approx(want, rel=1e-5)


def test_batch_norm_standardises_every_layer_and_the_last_without_a_gain():
    torch.manual_seed(0)
    head = Projection(6, 8, 5, "batch").double().train()
    with torch.no_grad():
        for tensor in head.parameters():
            tensor.add_(0.3 * torch.randn_like(tensor))
    x = 5 + unit(11, 6).numpy()
    weights = {n: t.detach().numpy() for n, t in head.named_parameters()}
    assert sorted({n.split(".")[1] for n in weights}) == ["0", "1", "3", "4", "6"]  # the last norm has no parameter
    for linear, norm in (("0", "1"), ("3", "4"), ("6", None)):
        x = x @ weights[f"mlp.{linear}.weight"].T + weights[f"mlp.{linear}.bias"]
        x = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)
        if norm:
            x = x * weights[f"mlp.{norm}.weight"] + weights[f"mlp.{norm}.bias"]
            x = F.gelu(torch.from_numpy(x)).numpy()
    want = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(head(torch.from_numpy(5 + unit(11, 6).numpy())).detach().numpy(), want, atol=1e-12)
    assert not any(isinstance(m, nn.BatchNorm1d) for m in Projection(6, 8, 5).modules())


@pytest.mark.parametrize(("norm", "micro"), [("none", 0), ("none", 2), ("batch", 0)])
def test_a_step_is_cross_entropy_between_views_of_the_same_film(norm, micro):
    """Loss and gradients of the tower against the definition, with the towers called view by view."""
    objective = build(Config, {**SMALL, "prototype_norm": norm, "micro_batch": micro}).build()
    model = initial_model(build(ModelConfig, {"vision": VISION}), [objective], 0)
    furnish(model, objective, 0)
    model.double()
    objective.begin(model, Schedule(1, 1, 0, 100), ())
    with torch.no_grad():  # the teacher is not the student
        for tensor in model.site["teacher"].parameters():
            tensor.add_(0.05 * torch.randn_like(tensor))
    g = torch.Generator().manual_seed(1)
    both = torch.rand(2, 5, 1, 32, 32, generator=g, dtype=torch.float64)
    local = torch.rand(3, 5, 1, 16, 16, generator=g, dtype=torch.float64)
    model.site["prototypes"].train()

    schedule = Schedule(1, 1, 50, 100)
    found = 0.0
    for part in objective.on_views(model, (both, local), None, schedule):
        part["view_loss"].backward(retain_graph=True)
        found += part["view_loss"].item()
    grads = {n: p.grad.clone() for n, p in model.vision.named_parameters() if p.grad is not None}
    model.zero_grad()

    with torch.no_grad():
        features = torch.cat([model.site["teacher"]["vision"](view) for view in both])
        teacher = model.site["teacher_prototypes"](features).view(2, 5, -1)
    head = model.site["prototypes"]
    student = [*head(torch.cat([model.vision(v) for v in both])).view(2, 5, -1)]
    student += [*head(torch.cat([model.vision(v) for v in local])).view(3, 5, -1)]
    losses = [
        F.cross_entropy(s @ teacher[i].T / 0.2, torch.arange(5))
        for i in range(2)
        for j, s in enumerate(student)
        if i != j
    ]
    want = 0.5 * sum(losses) / len(losses)
    want.backward()
    assert len(losses) == 8 and found == pytest.approx(want.item(), rel=1e-10)
    assert grads and max(g.abs().max() for g in grads.values()) > 1e-6
    for name, p in model.vision.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(grads[name], p.grad, rtol=1e-7, atol=1e-10, msg=name)
