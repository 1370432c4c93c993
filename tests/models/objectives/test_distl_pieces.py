"""Losses and heads of self-training distillation from their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.objectives._distl_heads import PrototypeHead, class_head
from models.objectives._distl_loss import centred, koleo, pairs, sinkhorn, view_loss


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- losses ------------------------------------------------------------------------------------------------------------


def literal_view_loss(student, targets, temperature: float) -> float:
    """Every pair, every film, every prototype."""
    V, B, K = student.shape
    total, terms = 0.0, 0
    for i in range(len(targets)):
        for j in range(V):
            if i == j:
                continue
            terms += 1
            for b in range(B):
                z = [student[j, b, k].item() / temperature for k in range(K)]
                top = max(z)
                log_sum = top + math.log(sum(math.exp(x - top) for x in z))
                total -= sum(targets[i, b, k].item() * (z[k] - log_sum) for k in range(K)) / B
    return total / terms


@pytest.mark.parametrize("cuts", [[(0, 6)], [(0, 2), (2, 6)], [(0, 1), (1, 3), (3, 6)]])
def test_the_view_loss_is_the_mean_over_all_pairs_whatever_the_chunks(cuts):
    student, targets = random(6, 3, 7), random(2, 3, 7, seed=1).softmax(-1)
    parts = [view_loss(student[a:b], targets, 0.1, a, 6) for a, b in cuts]
    assert sum(parts).item() == pytest.approx(literal_view_loss(student, targets, 0.1), rel=1e-12)
    assert (pairs(10), pairs(2), pairs(6)) == (18, 2, 10)


def test_the_view_loss_of_half_precision_logits_is_computed_in_single():
    student, targets = random(4, 2, 5000) * 0.3, random(2, 2, 5000, seed=1).softmax(-1)
    rounded = student.to(torch.bfloat16)
    want = view_loss(rounded.double(), targets, 0.1, 0, 4).item()
    assert view_loss(rounded, targets.float(), 0.1, 0, 4).item() == pytest.approx(want, rel=1e-5)


def test_sinkhorn_is_the_plain_alternation_and_balances_prototypes():
    logits = random(12, 5)
    Q = np.exp(logits.numpy().T / 0.3)
    Q /= Q.sum()
    for _ in range(3):
        Q = Q / Q.sum(axis=1, keepdims=True) / 5
        Q = Q / Q.sum(axis=0, keepdims=True) / 12
    np.testing.assert_allclose(sinkhorn(logits, 0.3).numpy(), (Q * 12).T, rtol=1e-10)
    long = sinkhorn(logits, 0.3, rounds=200)
    torch.testing.assert_close(long.sum(dim=1), torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(long.sum(dim=0), torch.full((5,), 12 / 5, dtype=torch.float64), rtol=1e-6, atol=0)
    assert torch.isfinite(sinkhorn(1000 * logits, 0.04)).all()
    plain = centred(logits, torch.zeros(5, dtype=torch.float64), 0.3)
    assert (plain.sum(dim=0) - 12 / 5).abs().max() > 0.3  # the control


def test_koleo_is_minus_the_mean_log_distance_to_the_nearest_neighbour():
    x = random(9, 4)
    unit = (x / x.norm(dim=1, keepdim=True)).numpy()
    want = 0.0
    for i in range(9):
        want -= math.log(min(np.linalg.norm(unit[i] - unit[j]) for j in range(9) if j != i) + 1e-8) / 9
    assert koleo(x).item() == pytest.approx(want, rel=1e-9)
    assert koleo(x[:1]).item() == 0.0
    spread = x.clone().requires_grad_()
    koleo(spread).backward()
    assert koleo(x - 0.05 * spread.grad).item() < koleo(x).item()


def test_unit_prototypes_are_weight_normalisation_with_a_gain_of_one():
    torch.manual_seed(0)
    head = PrototypeHead(6, 8, 5, 11, unit=True).double()
    twin = nn.utils.parametrizations.weight_norm(nn.Linear(5, 11, bias=False).double(), dim=0)
    with torch.no_grad():
        twin.parametrizations.weight.original0.fill_(1)
        twin.parametrizations.weight.original1.copy_(head.prototypes)
    x = random(7, 6)
    want = twin(F.normalize(head.mlp(x), dim=-1))
    torch.testing.assert_close(head(x), want, rtol=0, atol=1e-12)
    pull = random(7, 11, seed=3)
    (head(x) * pull).sum().backward()
    found = head.prototypes.grad.clone()
    (want * pull).sum().backward()
    torch.testing.assert_close(found, twin.parametrizations.weight.original1.grad, rtol=0, atol=1e-12)
    assert (head(x) ** 2).max() <= 1 + 1e-9
    plain = PrototypeHead(6, 8, 5, 11, unit=False).double()
    plain.load_state_dict(head.state_dict())
    torch.testing.assert_close(plain(x), F.normalize(plain.mlp(x), dim=-1) @ plain.prototypes.T)


def test_frozen_prototypes_give_the_same_logits_and_no_gradient():
    head = PrototypeHead(6, 8, 5, 11, unit=True).double()
    x = random(7, 6)
    torch.testing.assert_close(head(x, frozen=True), head(x), rtol=0, atol=0)
    head(x, frozen=True).square().sum().backward()
    assert head.prototypes.grad is None and head.mlp[0].weight.grad is not None


@pytest.mark.parametrize("hidden", [(), (5,), (5, 4)])
def test_the_class_head_is_layers_with_relu_between(hidden):
    head = class_head(6, hidden, 2)
    assert [m.out_features for m in head if isinstance(m, nn.Linear)] == [*hidden, 2]
    assert isinstance(head[-1], nn.Linear) and sum(isinstance(m, nn.ReLU) for m in head) == len(hidden)


def test_a_standardised_class_head_sees_each_feature_less_its_mean_over_its_spread():
    head, x = class_head(6, (), 1, "batch").double(), random(9, 6, seed=3) * 5 + 2
    z = (x - x.mean(dim=0)) / (x.var(dim=0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(head(x), z @ head[-1].weight.T + head[-1].bias, rtol=0, atol=1e-12)
    torch.testing.assert_close(head[0].running_mean, 0.1 * x.mean(dim=0), rtol=0, atol=1e-12)


def test_one_film_alone_is_standardised_by_what_was_seen_before_and_teaches():
    head, x = class_head(6, (), 1, "batch").double(), random(9, 6, seed=3)
    head(x)
    before = {name: t.clone() for name, t in head.state_dict().items()}
    alone = head(x[:1])
    alone.sum().backward()
    assert head[-1].weight.grad.abs().max() > 0
    torch.testing.assert_close(dict(head.state_dict()), before)
    torch.testing.assert_close(alone, head.eval()(x[:1]))
