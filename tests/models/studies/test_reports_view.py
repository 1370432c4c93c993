from __future__ import annotations

import numpy as np
import pytest
import torch

from models.studies.views import Images, Reports, ViewError
from tests.models.objectives.towers import report_store

TEXTS = (("Clear.", "Normal."), (None, "Effusion."), ("  ", None), ("Edema.", None), (None, None))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return report_store(tmp_path_factory.mktemp("store") / "s", TEXTS, images=2)


def texts(view):
    return sorted(view.texts)


def test_one_item_a_study_with_text_however_many_films(store):
    view = Reports(store)
    assert texts(view) == ["Clear. Normal.", "Edema.", "Effusion."]
    assert len(view) == 3 and len(Images(store, size=16)) == 10
    assert len(np.unique(view.patients)) == 3 and view.labels.shape == (3, 0)
    studies = store.strings("study")
    assert len({studies[row] for row in view.rows}) == 3
    for row, parts in zip(view.rows, view.parts):
        assert parts == tuple((store.strings(n)[row] or "").strip() or None for n in ("findings", "impression"))


def test_sections_and_tags(store):
    assert texts(Reports(store, sections=("impression",))) == ["Effusion.", "Normal."]
    assert texts(Reports(store, sections=("impression", "findings"))) == ["Edema.", "Effusion.", "Normal. Clear."]
    assert texts(Reports(store, tagged=True)) == [
        "[FINDINGS] Clear. [IMPRESSION] Normal.",
        "[FINDINGS] Edema.",
        "[IMPRESSION] Effusion.",
    ]


def test_only_the_rows_given(store):
    row = int(Reports(store).rows[0])
    assert len(Reports(store, np.array([row]))) == 1
    second = np.flatnonzero(store.strings("study") == store.strings("study")[row])[1]
    assert Reports(store, np.array([second])).rows.tolist() == [second]


def test_batches(store):
    view = Reports(store)
    batch = view.batch(torch.tensor([2, 0, 2]))
    assert batch.texts == (view.texts[2], view.texts[0], view.texts[2]) and batch.items.tolist() == [2, 0, 2]
    assert len(batch) == 3 and batch.to("cpu").texts == batch.texts and view[1].texts == (view.texts[1],)


def test_no_pixel_is_read(tmp_path):
    store = report_store(tmp_path / "s", TEXTS)
    Reports(store).batch([0])
    assert not (tmp_path / "s" / "derived").exists()


def test_what_cannot_be_given_is_said(store):
    with pytest.raises(ViewError, match="ingest reports with the images"):
        Reports(store, np.array([], dtype=np.int64))
    with pytest.raises(ViewError, match=r"sections \['history'\]: give some of findings, impression"):
        Reports(store, sections=("history",))
    assert Reports.missing(store) is None and "impression" in Reports.missing(store, sections=())
