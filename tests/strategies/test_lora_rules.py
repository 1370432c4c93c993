"""The rules for low-rank adapters against the weighted mean of the sites' products, computed densely in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from models.config import ConfigError
from models.registry import configure
from models.text.folding import Foldable
from strategies.adapters import factor_of, of_factor
from strategies.rules._base import Update
from strategies.rules._lowrank import layers, norm, stacked, svd
from tests.strategies.lora_world import (
    EXACT,
    LAYERS,
    ONE,
    SETTINGS,
    begun,
    bytes_of,
    error,
    llama_1b,
    moved,
    names,
    reached,
    rule,
    start,
    targets,
    trained,
    true_mean,
)

FACTOR = {"alternate": "BA", "ffa": "B"}
"""What a rule trains, round by round; the others both."""


def middle(name: str, rank: int) -> dict[str, torch.Tensor]:
    """The factors somewhere in a run: B is not zero, but with ``stack``, which begins anew each round."""
    return start(rank, b=0.0 if name == "stack" else 0.1)


def combined(name, sites, rank, wire=torch.float32, seed=1):
    made, current = begun(name, middle(name, rank), wire)
    weights = [1.0 + 37 * (i % 4) for i in range(sites)]
    updates = moved(current, made.train(2, current) if name == "alternate" else made.train(1, current), weights, seed)
    return made, current, updates, made.combine(current, updates)


@pytest.mark.parametrize("rank", [4, 16, 64])
@pytest.mark.parametrize("sites", [2, 5, 20])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_model_after_a_round_is_the_mean_of_the_sites_models(name, sites, rank):
    made, current, updates, new = combined(name, sites, rank)
    assert {n: (t.shape, t.dtype) for n, t in new.items()} == {n: (t.shape, t.dtype) for n, t in current.items()}
    found = error(current, updates, new, made)
    print(f"{name}, {sites} sites, rank {rank}: {found:.1e}")
    if name in EXACT:
        assert found <= 1e-6
    else:
        assert found > 1e-3  # not exact, and known to be


@pytest.mark.parametrize("name", ["stack", "fedex"])
@pytest.mark.parametrize("sites", [2, 20])
def test_the_base_gains_the_fold_in_float32(name, sites):
    """The same in the weights that the model runs on, whose own rounding is all that may be lost."""
    made, current, updates, new = combined(name, sites, 16)
    for layer, shape in LAYERS.items():
        weight = torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(5)) * 0.05)
        before = weight.detach().double().numpy()
        base = Foldable({layer: weight})
        part = type(made.fold)(made.fold.terms, {n: t for n, t in made.fold.tensors.items() if n.startswith(layer)})
        base.add(part, "head")
        a, b = (new[n].double().numpy() for n in names(layer))
        whole = weight.detach().double().numpy() + 32.0 / 16 * b @ a
        want = before + true_mean(current, updates, layer)
        assert np.linalg.norm(whole - want) / np.linalg.norm(want) <= 1e-6


def test_the_negative_control_plain_averaging_at_heterogeneity_1_is_off_by_half():
    """Sites that train towards targets of their own: averaging the factors misses half of the mean."""
    wanted = targets(5, het=1.0)
    current = start(16, ONE)
    updates = trained(current, "AB", wanted, torch.zeros(384, 384), lr=0.01)
    made = rule("average")
    new = made.combine(current, updates)
    biased = error(current, updates, new, made, ONE)
    print(f"average at heterogeneity 1: {biased:.2f}")
    assert 0.35 < biased < 0.75
    [note] = made.notes
    assert note.metric == "lora_bias" and note.n == 5 and note.value == pytest.approx(biased, rel=1e-5)
    even, same = rule("alternate"), trained(current, "B", wanted, torch.zeros(384, 384), lr=0.01)
    assert error(current, same, even.combine(current, same), even, ONE) <= 1e-6


def test_the_first_round_trains_b_and_the_factors_take_turns():
    made, fresh, going = rule("alternate"), start(4), start(4, b=0.1)
    assert [made.train(n, going) for n in (1, 2, 3, 4)] == ["B", "A", "B", "A"]
    # After a first round without a quorum B is still zero, and A would have no gradient.
    assert [made.train(n, fresh) for n in (1, 2, 3)] == ["B", "B", "B"]
    assert {rule(n).train(k, going) for n in ("stack", "fedex", "svd", "average") for k in (1, 2)} == {"AB"}
    assert {rule("ffa").train(k, going) for k in (1, 2)} == {"B"}


@pytest.mark.parametrize("name", ["alternate", "ffa"])
def test_a_factor_that_did_not_travel_stays_bit_for_bit(name):
    _, current, updates, new = combined(name, 3, 4)
    [sent] = {factor_of(n) for u in updates for n in u.tensors}
    still = of_factor(current, {"A": "B", "B": "A"}[sent])
    assert all(torch.equal(new[n], t) for n, t in still.items())
    assert not any(torch.equal(new[n], t) for n, t in of_factor(current, sent).items())


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_no_adapter_is_averaged_by_weight(name):
    made, current = begun(name, {**middle(name, 4), "text_proj/1.weight": torch.zeros(3, 2)})
    updates = moved(current, made.train(1, current), [1.0, 3.0])
    updates = [
        Update(u.site, {**u.tensors, "text_proj/1.weight": torch.full((3, 2), float(4 * i))}, u.weight)
        for i, u in enumerate(updates)
    ]
    assert made.combine(current, updates)["text_proj/1.weight"].unique().tolist() == [3.0]


@pytest.mark.parametrize("name", SETTINGS)
def test_who_answers_first_does_not_matter(name):
    found = []
    for order in itertools.permutations(range(3)):
        made, current = begun(name, middle(name, 4))
        updates = moved(current, made.train(1, current), [5.0, 1.0, 2.0])
        new = made.combine(current, [updates[i] for i in order])
        found.append((new, made.fold.link("") if made.fold else None))
    assert all(torch.equal(new[n], t) for new, _ in found for n, t in found[0][0].items())
    assert len({head for _, head in found}) == 1


@pytest.mark.parametrize("name", ["stack", "svd"])
def test_sites_of_different_ranks(name):
    made, current = begun(name, middle(name, 16))
    updates = []
    for number, rank in enumerate((2, 5, 16)):
        mine = moved(start(rank, b=0.1), "AB", [1.0], seed=number)[0]
        updates.append(Update(f"s{number}", mine.tensors, float(number + 1)))
    new = made.combine(current, updates)
    found = error(current, updates, new, made)
    assert found <= 1e-6 if name == "stack" else 1e-3 < found < 0.9
    assert all(new[n].shape == t.shape for n, t in current.items())
    if name == "svd":
        assert [note.metric for note in made.notes] == [
            "lora_discarded",
            "lora_discarded_rank_5",
            "lora_discarded_rank_2",
        ]
        values = [note.value for note in made.notes]
        assert 0 < values[0] < values[1] < values[2] < 1


@pytest.mark.parametrize("rank", [2, 7])
def test_the_svd_is_the_best_of_its_rank_and_says_what_it_lost(rank):
    """Eckart and Young: no matrix of this rank is nearer; against the dense SVD."""
    made, current, updates, new = combined("svd", 4, rank)
    energy = lost = 0.0
    for layer in LAYERS:
        mean = true_mean(current, updates, layer)
        u, s, v = np.linalg.svd(mean, full_matrices=False)
        best = u[:, :rank] * s[:rank] @ v[:rank]
        assert np.linalg.norm(reached(new, made, layer) - best) <= 1e-6 * np.linalg.norm(mean)
        energy, lost = energy + (s**2).sum(), lost + (s[rank:] ** 2).sum()
    [note] = made.notes
    assert note.metric == "lora_discarded" and note.value == pytest.approx(lost / energy, rel=1e-9)


def test_what_fits_into_the_rank_loses_nothing_and_leaves_no_dead_row():
    """Two sites of rank 3 fit into 16. The ten rows that are not needed keep an A, or nothing could ever be learnt there."""
    made, current = rule("svd"), start(16, b=0.1)
    updates = [Update(f"s{i}", moved(start(3, b=0.1), "AB", [1.0], seed=i)[0].tensors, 1.0) for i in range(2)]
    new = made.combine(current, updates)
    assert error(current, updates, new, made) <= 1e-6 and made.notes[0].value < 1e-20
    for layer in LAYERS:
        a_name, b_name = names(layer)
        assert not new[b_name][:, 6:].any() and new[a_name].abs().amax(dim=1).min() > 0
        assert torch.equal(new[a_name][6:], current[a_name][6:])


def test_stack_begins_anew_with_another_a_that_every_side_draws_alike():
    made, current = begun("stack", start(4))
    seen = [of_factor(current, "A")]
    for number in (2, 3):
        updates = moved(current, "AB", [1.0, 2.0])
        current = made.combine(current, updates)
        assert not any(b.any() for b in of_factor(current, "B").values()) and made.drawn == number
        again = {n: rule("stack").setting.draw(number, n, tuple(t.shape)) for n, t in of_factor(current, "A").items()}
        assert all(torch.equal(t, again[n]) for n, t in of_factor(current, "A").items())
        seen.append(of_factor(current, "A"))
    name = next(iter(seen[0]))
    assert not any(torch.equal(a[name], b[name]) for a, b in itertools.combinations(seen, 2))


def test_stack_folds_what_an_earlier_phase_learnt():
    before = start(4, b=0.1)
    made, current = begun("stack", before)
    for layer in LAYERS:
        a, b = (before[n].double().numpy() for n in names(layer))
        np.testing.assert_allclose(reached(current, made, layer), 32.0 / 4 * b @ a, rtol=1e-9)
    assert begun("stack", start(4))[0].fold is None


@pytest.mark.parametrize("name", ["stack", "fedex"])
@pytest.mark.parametrize("wire", [torch.bfloat16, torch.float16])
def test_a_fold_loses_nothing_in_the_type_that_the_factors_travelled_in(name, wire):
    """Sites send bfloat16; the fold holds those very numbers, and the means are rounded before their product is taken off."""
    made, current = begun(name, {n: t.to(wire).float() for n, t in middle(name, 16).items()}, wire)
    updates = [
        Update(u.site, {n: t.to(wire).float() for n, t in u.tensors.items()}, u.weight)
        for u in moved(current, "AB", [3.0, 1.0, 1.0])
    ]
    new = made.combine(current, updates)
    assert {t.dtype for t in made.fold.tensors.values()} == {wire}
    if name == "fedex":
        assert all(torch.equal(t.to(wire).float(), t) for t in new.values())
    assert error(current, updates, new, made) <= 1e-6


@pytest.mark.parametrize(("name", "columns"), [("stack", 5 * 4), ("fedex", 6 * 4)])
def test_a_fold_has_the_rank_it_should_and_is_never_dense(name, columns):
    made, *_ = combined(name, 5, 4)
    for layer, (o, i) in LAYERS.items():
        assert made.fold.tensors[f"{layer}.lora_A.weight"].shape == (columns, i)
        assert made.fold.tensors[f"{layer}.lora_B.weight"].shape == (o, columns)


def test_norm_and_svd_of_factors_are_those_of_the_dense_sum():
    g = torch.Generator().manual_seed(0)
    for o, i, ranks in ((9, 14, (2, 3)), (6, 5, (4, 4, 4)), (1, 7, (2,)), (12, 12, (1,))):
        terms = [(c - 1.5, torch.randn(o, r, generator=g), torch.randn(r, i, generator=g)) for c, r in enumerate(ranks)]
        dense = sum(c * b.double() @ a.double() for c, b, a in terms)
        b, a = stacked(terms)
        torch.testing.assert_close(b @ a, dense)
        assert norm(terms) == pytest.approx(float(dense.norm()), rel=1e-12)
        values, left, right = svd(terms)
        torch.testing.assert_close((left * values) @ right, dense)
        torch.testing.assert_close(values, torch.linalg.svdvals(dense)[: len(values)], atol=1e-12, rtol=1e-12)


def test_no_dense_matrix_is_made_of_factors(monkeypatch):
    """A layer of 20,000 by 30,000 would be 4.8 GB in float64."""
    big = {"layers.0.mlp.up_proj": (20_000, 30_000)}
    real, sizes = torch.Tensor.__matmul__, []

    def watched(x, y):
        sizes.append((out := real(x, y)).numel())
        return out

    monkeypatch.setattr(torch.Tensor, "__matmul__", watched)
    for name in ("svd", "average", "fedex", "stack", "alternate"):
        made, current = begun(name, start(2, big))
        made.combine(current, moved(current, made.train(1, current), [1.0, 1.0]))
    assert sizes and max(sizes) < 1_000_000


def test_bytes_of_a_model_of_1b():
    """All seven linears, rank 16, bfloat16: one factor a round stays within 12.5 MB, header included; both are 22.5 MB."""
    shapes, parameters = llama_1b()
    assert len(shapes) == 2 * 16 * 7
    a, b, both = (bytes_of(shapes, f) for f in ("A", "B", "AB"))
    assert (a, b) == (2 * 5_242_880, 2 * 6_029_312) and both == a + b
    header = 200 * len(shapes)  # a name, a type, a shape and offsets each
    assert max(a, b) + header <= 12.5e6 and (a + b) / 2 <= 11.3e6 and both <= 22.6e6
    assert 4.9e9 < 4 * parameters < 5.0e9


def test_a_factor_without_its_other_is_told():
    with pytest.raises(ValueError, match="has factor A of its adapter and not the other"):
        layers(["text_lora/layers.0.q_proj.lora_A.weight"])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "average"}, "allow_biased false.*'alternate'"),
        ({"name": "average", "allow_biased": False}, "allow_biased false"),
        ({"name": "stack"}, "trusted_aggregator false: rule 'stack'"),
        ({"name": "fedex"}, "trusted_aggregator false: rule 'fedex'"),
        ({"name": "svd"}, "trusted_aggregator false: rule 'svd'"),
        ({"name": "alternate", "rank": 3}, "rank: unknown key"),
    ],
)
def test_a_rule_that_needs_a_word_of_consent_asks_for_it(values, said):
    with pytest.raises(ConfigError, match=said):
        configure("strategies.rules", values)


def test_a_draw_is_the_same_for_every_rank():
    """The row of a site with a lower rank is the same as that of one with a higher."""
    made = rule("stack").setting.draw
    high, low = made(3, "x", (16, 70)), made(3, "x", (5, 70))
    assert torch.equal(high[:5], low) and not torch.equal(made(4, "x", (5, 70)), low)
    assert float(high.abs().max()) <= 70**-0.5 and float(high.std()) == pytest.approx((1 / 210) ** 0.5, rel=0.1)
