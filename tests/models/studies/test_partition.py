from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from models.config import ConfigError, build
from models.studies.partition import Partition, PartitionError, partition
from models.studies.store import Store

SMALL = np.zeros((8, 8), dtype=np.uint8)


def patients(count: int, images: int = 2) -> list[dict]:
    """A third has edema, a third pneumonia, a third nothing; two sources."""
    rows = []
    for i in range(count):
        for j in range(images):
            row = {"patient": f"p{i}", "pixels": SMALL, "source": "left" if i % 2 else "right"}
            if i % 3 == 1 and j == 0:
                row["label:Edema"] = 1
            if i % 3 == 2:
                row["label:Pneumonia"] = 1
            rows.append(row)
    return rows


def assert_whole(store: Store, sites: dict[str, np.ndarray], rows: np.ndarray | None = None) -> None:
    together = np.concatenate(list(sites.values()))
    expected = np.arange(len(store)) if rows is None else rows
    assert sorted(together.tolist()) == sorted(expected.tolist())
    seen: set[int] = set()
    for part in sites.values():
        assert (np.diff(part) > 0).all()
        codes = set(store.patients.codes[part].tolist())
        assert not codes & seen
        seen |= codes


@pytest.mark.parametrize(
    "plan",
    [
        {"by": "source"},
        {"by": "hash", "sites": 4},
        {"by": "dirichlet", "sites": 4, "alpha": 0.5},
        {"by": "dirichlet", "sites": 3, "alpha": 0.1, "findings": ["Edema"], "min_patients": 2},
    ],
)
def test_every_row_in_one_site_and_no_patient_in_two(make_store: Callable[..., Store], plan: dict) -> None:
    store = make_store(patients(60))
    sites = partition(store, build(Partition, plan))
    assert_whole(store, sites)
    again = partition(store, build(Partition, plan))
    assert {k: v.tolist() for k, v in sites.items()} == {k: v.tolist() for k, v in again.items()}
    some = np.arange(10, 50)
    assert_whole(store, partition(store, build(Partition, plan), some), some)


def test_sources_keep_their_names(make_store: Callable[..., Store]) -> None:
    store = make_store(patients(6))
    sites = partition(store, Partition())
    assert list(sites) == ["left", "right"]
    assert set(store.strings("source")[sites["left"]]) == {"left"}


def test_a_patient_of_two_sources_goes_to_one(make_store: Callable[..., Store]) -> None:
    rows = [{"patient": "p", "source": s, "pixels": SMALL} for s in ("a", "b", "b")]
    rows.append({"patient": "q", "source": "a", "pixels": SMALL})
    sites = partition(make_store(rows), Partition())
    assert {name: part.tolist() for name, part in sites.items()} == {"a": [3], "b": [0, 1, 2]}


def test_hash_makes_equal_parts(make_store: Callable[..., Store]) -> None:
    store = make_store(patients(30))
    sites = partition(store, Partition(by="hash", sites=4, seed=3))
    sizes = [len(set(store.patients.codes[part])) for part in sites.values()]
    assert sum(sizes) == 30 and max(sizes) - min(sizes) <= 1
    assert list(sites) == ["site-1", "site-2", "site-3", "site-4"]


@pytest.mark.parametrize("plan", [Partition(by="hash", sites=3), Partition(by="dirichlet", sites=3, alpha=1.0)])
def test_the_order_of_rows_has_no_part(make_stores: Callable[..., Store], plan: Partition) -> None:
    rows = patients(30)
    first, second = make_stores(rows), make_stores(rows[::-1])
    sites, turned = partition(first, plan), partition(second, plan)
    for name in sites:
        mine, other = first.strings("patient")[sites[name]], second.strings("patient")[turned[name]]
        assert set(mine) == set(other)


def test_another_seed_is_another_partition(make_store: Callable[..., Store]) -> None:
    store = make_store(patients(30))
    for plan in ({"by": "hash", "sites": 2}, {"by": "dirichlet", "sites": 2, "alpha": 1.0}):
        one, two = (partition(store, build(Partition, {**plan, "seed": seed})) for seed in (1, 2))
        assert one["site-1"].tolist() != two["site-1"].tolist()


def skew(store: Store, alpha: float, seed: int) -> float:
    """Mean distance of a site's share of each class from the share in the whole."""
    sites = partition(store, Partition(by="dirichlet", sites=4, alpha=alpha, seed=seed))
    present = store.labels(["Edema", "Pneumonia"]) == 1
    whole = present.mean(axis=0)
    return float(np.mean([np.abs(present[rows].mean(axis=0) - whole).mean() for rows in sites.values()]))


def test_a_small_alpha_skews_the_labels(make_store: Callable[..., Store]) -> None:
    store = make_store(patients(600, images=1))
    strong = np.mean([skew(store, 0.3, seed) for seed in range(10)])
    weak = np.mean([skew(store, 1000.0, seed) for seed in range(10)])
    assert strong > 4 * weak


def test_dirichlet_shares_have_the_variance_of_the_distribution(make_store: Callable[..., Store]) -> None:
    """Share of one class at one site over many seeds: mean 1/K, variance (K-1)/(K^2 (K alpha + 1))."""
    store = make_store([{"patient": f"p{i}", "pixels": SMALL, "label:Edema": 1} for i in range(400)])
    sites, alpha = 3, 2.0
    shares = np.array(
        [
            len(partition(store, Partition(by="dirichlet", sites=sites, alpha=alpha, seed=seed))["site-1"]) / 400
            for seed in range(300)
        ]
    )
    variance = (sites - 1) / (sites**2 * (sites * alpha + 1))
    assert abs(shares.mean() - 1 / sites) < 4 * np.sqrt(variance / 300)
    assert 0.7 * variance < shares.var() < 1.4 * variance


def test_classes_are_rarest_findings(make_store: Callable[..., Store]) -> None:
    """With a tiny alpha each class goes whole to one site; a patient with both goes with the rarer."""
    rows = [{"patient": f"p{i}", "pixels": SMALL, "label:Edema": 1} for i in range(20)]
    rows += [{"patient": f"q{i}", "pixels": SMALL, "label:Edema": 1, "label:Fracture": 1} for i in range(5)]
    store = make_store(rows)
    for seed in range(20):
        try:
            sites = partition(store, Partition(by="dirichlet", sites=2, alpha=1e-3, seed=seed))
        except PartitionError:
            continue  # both classes at one site in every draw
        assert sorted(len(part) for part in sites.values()) == [5, 20]


def test_more_sites_than_patients(make_store: Callable[..., Store]) -> None:
    store = make_store(patients(3))
    with pytest.raises(PartitionError, match=r"4 sites .* need 4, there are 3"):
        partition(store, Partition(by="hash", sites=4))
    with pytest.raises(PartitionError, match="ask for fewer sites"):
        partition(store, Partition(by="dirichlet", sites=2, alpha=1.0, min_patients=2))


def test_a_single_patient_makes_one_site(make_store: Callable[..., Store]) -> None:
    store = make_store(patients(1))
    assert partition(store, Partition(by="hash", sites=1))["site-1"].tolist() == [0, 1]


def test_a_source_with_too_few_patients(make_store: Callable[..., Store]) -> None:
    with pytest.raises(PartitionError, match="'left' has 1 patient"):
        partition(make_store(patients(3)), Partition(min_patients=2))


def test_impossible_skew_says_so(make_store: Callable[..., Store]) -> None:
    rows = [{"patient": f"p{i}", "pixels": SMALL, "label:Edema": 1} for i in range(9)]
    with pytest.raises(PartitionError, match="raise alpha"):
        partition(make_store(rows), Partition(by="dirichlet", sites=9, alpha=0.001))


def test_unknown_finding_is_named(make_store: Callable[..., Store]) -> None:
    with pytest.raises(PartitionError, match=r"Oedema.*it knows: No Finding"):
        partition(make_store(patients(9)), Partition(by="dirichlet", sites=2, alpha=1.0, findings=("Oedema",)))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"by": "source", "sites": 2}, "contradicts sites"),
        ({"by": "hash"}, "give a number of sites"),
        ({"by": "hash", "sites": 2, "alpha": 1.0}, "contradicts alpha"),
        ({"by": "dirichlet", "sites": 2}, "alpha: None"),
        ({"by": "dirichlet", "sites": 2, "alpha": 0.0}, "number over 0"),
        ({"by": "sauce"}, "source"),
        ({"min_patients": 0}, "min_patients: 0"),
        ({"site": 2}, "did you mean 'sites'"),
    ],
)
def test_bad_plans(values: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        build(Partition, values)
