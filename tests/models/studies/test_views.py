from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from models.studies.store import Store
from models.studies.views import (
    ImageBatch,
    Images,
    Labelled,
    LabelledBatch,
    Pair,
    PairBatch,
    Pairs,
    ViewError,
)


def series() -> list[dict]:
    """Patient a: PA on day 0, PA and lateral on day 5, AP on day 9; b: two undated; c: one."""
    return [
        {"patient": "a", "study": "a0", "day": 0, "order": 0, "label:Edema": 0},
        {"patient": "a", "study": "a5", "day": 5, "order": 1, "prior": "a0", "label:Edema": 1},
        {
            "patient": "a",
            "study": "a5",
            "day": 5,
            "order": 1,
            "prior": "a0",
            "view": "LATERAL",
            "label:Edema": 1,
        },
        {
            "patient": "a",
            "study": "a9",
            "day": 9,
            "order": 2,
            "prior": "a5",
            "view": "AP",
            "flags": "cut:0.2",
        },
        {"patient": "b", "study": "b0", "order": 0},
        {"patient": "b", "study": "b1", "order": 1, "prior": "b0", "label:Edema": -1},
        {"patient": "c", "study": "c0", "order": 0},
    ]


def test_images(make_store: Callable[..., Store]) -> None:
    store = make_store(series())
    view = Images(store, size=32)
    batch = view.batch(torch.tensor([6, 0, 0]))
    assert isinstance(batch, ImageBatch) and len(batch) == 3 and len(view) == 7
    assert batch.images.shape == (3, 1, 32, 32) and batch.images.dtype == torch.uint8
    np.testing.assert_array_equal(batch.images[:, 0].numpy(), store.resized(32)[[6, 0, 0]])
    part = Images(store, rows=np.array([5, 2]), size=32)
    assert part.rows.tolist() == [5, 2]
    np.testing.assert_array_equal(part.batch(np.array([1])).images[0, 0].numpy(), store.resized(32)[2])
    assert part.patients.tolist() == store.patients.codes[[5, 2]].tolist()


def test_a_batch_is_a_copy_of_its_own(make_store: Callable[..., Store]) -> None:
    view = Images(make_store(series()), size=32)
    batch = view.batch([0])
    before = batch.images.clone()
    batch.images.zero_()
    assert torch.equal(view.batch([0]).images, before)


def test_labelled_keeps_images_that_mention_a_finding(make_store: Callable[..., Store]) -> None:
    view = Labelled(make_store(series()), size=32, findings=("Edema", "Fracture"))
    assert view.rows.tolist() == [0, 1, 2, 5]
    assert view.labels.tolist() == [[0, -2], [1, -2], [1, -2], [-1, -2]]
    batch = view.batch([3, 1])
    assert isinstance(batch, LabelledBatch)
    assert batch.labels.dtype == torch.int8 and batch.labels.tolist() == [[-1, -2], [1, -2]]
    assert view.findings == ("Edema", "Fracture") and len(view.patients) == 4


def test_pairs_prefer_the_same_projection(make_store: Callable[..., Store]) -> None:
    store = make_store(series())
    view = Pairs(store, size=32, findings=("Edema",))
    found = list(zip(view.pairs.prior.tolist(), view.pairs.current.tolist(), view.gap_days.tolist()))
    # The lateral of a5 has no lateral before it: the frontal one stands in; AP of a9 takes the PA.
    assert found == [(0, 1, 5), (0, 2, 5), (1, 3, 4), (4, 5, -1)]
    assert view.rows.tolist() == [1, 2, 3, 5]
    batch = view.batch([0, 3])
    assert isinstance(batch, PairBatch) and isinstance(batch.images, Pair) and len(batch) == 2
    np.testing.assert_array_equal(batch.images.prior[:, 0].numpy(), store.resized(32)[[0, 4]])
    np.testing.assert_array_equal(batch.images.current[:, 0].numpy(), store.resized(32)[[1, 5]])
    assert batch.labels.prior.tolist() == [[0], [-2]] and batch.labels.current.tolist() == [[1], [-1]]
    assert batch.gap_days.tolist() == [5, -1] and batch.gap_days.dtype == torch.int32


def test_pairs_of_one_projection_without_flags(make_store: Callable[..., Store]) -> None:
    store = make_store(series())
    same = Pairs(store, size=32, same_view=True)
    assert list(zip(same.pairs.prior, same.pairs.current)) == [(0, 1), (4, 5)]
    clean = Pairs(store, size=32, without_flags=("cut",))
    assert 3 not in clean.pairs.current
    assert same.batch([0]).labels.prior.shape == (1, 0)


def test_pairs_stay_inside_the_rows(make_store: Callable[..., Store]) -> None:
    view = Pairs(make_store(series()), rows=np.array([0, 1, 5]), size=32)
    assert list(zip(view.pairs.prior, view.pairs.current)) == [(0, 1)]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_loader_fetches_whole_batches(make_store: Callable[..., Store], workers: int) -> None:
    view = Labelled(make_store(series()), size=32, findings=("Edema",))
    loader = DataLoader(view, batch_size=3, collate_fn=view.collate, num_workers=workers)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [3, 1]
    assert torch.equal(torch.cat([b.images for b in batches]), view.batch(range(4)).images)


def test_batches_move_and_keep_their_type(make_store: Callable[..., Store]) -> None:
    batch = Pairs(make_store(series()), size=32).batch([0]).to("meta")
    assert isinstance(batch, PairBatch) and batch.images.prior.device.type == "meta"


def test_why_a_view_cannot_be_made(make_store: Callable[..., Store]) -> None:
    store = make_store(series())
    with pytest.raises(ViewError, match=r"'Oedema' not in this store; it knows: No Finding, .*Edema"):
        Labelled(store, findings=("Oedema",))
    with pytest.raises(ViewError, match="none given"):
        Labelled(store)
    with pytest.raises(ViewError, match="labels Fracture; labelled here: Edema"):
        Labelled(store, findings=("Fracture",))
    with pytest.raises(ViewError, match="no patient among the rows"):
        Pairs(store, rows=np.array([0, 4, 6]))
    with pytest.raises(ViewError, match="not in this store"):
        Pairs(store, findings=("Oedema",))
    with pytest.raises(ViewError, match="no image"):
        Images(store, rows=np.array([], dtype=np.int64))
    with pytest.raises(ViewError, match="0 to 6"):
        Images(store, rows=np.array([7]))
    assert Images.missing(store) is None
    assert Labelled.missing(store, findings=("Edema",)) is None
    assert Pairs.missing(store) is None
    assert not (store.path / "derived").exists()  # refused before any work
