"""Folds into the frozen weights under the adapters, their chain, and adapters of another rank."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.text.folding import Fold, heads
from tests.models.text.towers import REPORTS, make, stir


def fold(tower, seed: int = 0, terms=((2, 0.5), (3, -0.25)), scale: float = 0.1) -> Fold:
    g = torch.Generator().manual_seed(seed)
    rank, tensors = sum(r for r, _ in terms), {}
    for name, (o, i) in tower.folded.shapes.items():
        tensors[f"{name}.lora_A.weight"] = scale * torch.randn(rank, i, generator=g)
        tensors[f"{name}.lora_B.weight"] = scale * torch.randn(o, rank, generator=g)
    return Fold(tuple(terms), tensors)


@pytest.fixture
def tower():
    return make(lora={"rank": 4})


def weights(tower):
    return {name: w.detach().clone() for name, w in tower.folded.weights.items()}


def test_a_fold_adds_the_sum_of_its_products(tower):
    one, before = fold(tower), weights(tower)
    tower.rebase([one])
    for name, was in before.items():
        a, b = (one.tensors[f"{name}.lora_{x}.weight"].double() for x in "AB")
        want = was.double() + 0.5 * b[:, :2] @ a[:2] - 0.25 * b[:, 2:] @ a[2:]
        assert torch.equal(tower.folded.weights[name], want.float())
    assert len(before) == 14


def test_a_fold_of_the_adapters_is_what_the_adapters_were(tower):
    stir(tower)
    vectors = tower.encode(REPORTS)
    state = tower.components()["text_lora"].state_dict()
    one = Fold(((4, 32 / 4),), {name: value.clone() for name, value in state.items()})
    with torch.no_grad():
        for name, value in state.items():
            if ".lora_B." in name:
                value.zero_()
    assert not torch.allclose(tower.encode(REPORTS), vectors, atol=1e-4)
    tower.rebase([one])
    assert torch.allclose(tower.encode(REPORTS), vectors, atol=1e-5)


def test_one_object_can_be_of_any_chain_and_back_bit_for_bit(tower):
    built, (a, b, c) = weights(tower), (fold(tower, seed) for seed in range(3))

    def after(*folds):
        tower.rebase(folds)
        return weights(tower)

    ab, abc = after(a, b), after(a, b, c)
    assert all(torch.equal(t, built[n]) for n, t in after().items())
    assert all(torch.equal(t, abc[n]) for n, t in after(a, b, c).items())
    other = after(c)
    assert not any(torch.equal(t, other[n]) for n, t in ab.items())
    assert all(torch.equal(t, ab[n]) for n, t in after(a, b).items())
    assert all(torch.equal(t, built[n]) for n, t in after().items())


def test_what_is_in_already_is_not_added_again(tower, monkeypatch):
    a, b = fold(tower, 0), fold(tower, 1)
    tower.rebase([a])
    added = []
    real = Fold.delta
    monkeypatch.setattr(Fold, "delta", lambda self, layer: added.append(self) or real(self, layer))
    tower.rebase([a, b])
    assert added and all(one is b for one in added)


def test_the_hash_as_built_stays_and_the_head_tells_every_change(tower):
    built, one = tower.base_hash, fold(tower)
    assert tower.base_head == built
    tower.rebase([one])
    assert tower.base_hash == built and tower.base_head == heads(built, [one])[0] != built
    name = next(iter(one.tensors))
    changed = {**one.tensors, name: one.tensors[name] + torch.finfo(torch.float32).eps}
    others = [
        replace(one, terms=((2, 0.5), (3, -0.25000001))),
        replace(one, terms=((3, 0.5), (2, -0.25))),
        replace(one, tensors=changed),
        replace(one, tensors={n: t.bfloat16() for n, t in one.tensors.items()}),
    ]
    found = {heads(built, [fold])[0] for fold in (one, *others)} | {heads("0" * 64, [one])[0]}
    assert len(found) == 6
    a, b = fold(tower, 1), fold(tower, 2)
    assert heads(built, [a, b])[1] != heads(built, [b, a])[1]


def test_an_adapter_saved_over_a_fold_belongs_to_that_base(tower, tmp_path):
    tower.rebase([fold(tower)])
    tower.save_adapter(tmp_path)
    assert tower.base_head in (tmp_path / "fedcxr.json").read_text()


@pytest.mark.parametrize("change", ["missing", "more", "shape"])
def test_a_fold_that_does_not_fit_is_refused_before_anything_changes(tower, change):
    one, built = fold(tower), weights(tower)
    tensors = dict(one.tensors)
    name = next(iter(tensors))
    if change == "missing":
        del tensors[name]
    elif change == "more":
        tensors["embed_tokens.lora_A.weight"] = torch.zeros(5, 5)
    else:
        tensors[name] = tensors[name][:, :-1]
    with pytest.raises(ValueError, match="missing, superfluous or of another shape"):
        tower.rebase([replace(one, tensors=tensors)])
    assert all(torch.equal(t, built[n]) for n, t in weights(tower).items()) and tower.base_head == tower.base_hash


def test_a_tower_without_adapters_has_nothing_to_fold_into():
    with pytest.raises(ValueError, match="set lora"):
        make().rebase([])


def test_a_merged_folder_holds_the_folds_too(tower, tmp_path):
    stir(tower)
    tower.rebase([fold(tower)])
    tower.save(tmp_path)
    again = make(seed=5, source=str(tmp_path))
    assert torch.allclose(again.encode(REPORTS), tower.encode(REPORTS), atol=1e-5)


def test_another_rank_keeps_what_fits_and_the_scale(tower):
    stir(tower)
    part = tower.components()["text_lora"]
    before = {name: value.clone() for name, value in part.state_dict().items()}
    vectors = tower.encode(REPORTS)
    part.resize(6, alpha=32 * 6 / 4)  # two more rows of zeros, at the same scale
    assert part.rank == 6 and torch.allclose(tower.encode(REPORTS), vectors, atol=1e-6)
    part.resize(2, alpha=32)
    for name, value in part.state_dict().items():
        assert torch.equal(value, before[name][:2] if ".lora_A." in name else before[name][:, :2])
    tower.embed(REPORTS).square().sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in part.parameters())
    merged = tower.encode(REPORTS)
    layer = tower.trunk.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == 16
    assert torch.isfinite(merged).all()
