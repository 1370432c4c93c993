from __future__ import annotations

from itertools import pairwise
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from client.ingest.fold import fold
from models.studies.pairing import PairingRules
from models.studies.schema import CHEXPERT, Label


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    named = [{"image": str(i), "view": "PA", **row} for i, row in enumerate(rows)]
    return pa.concat_tables(fold(named, CHEXPERT)).to_pylist()


def placed(rows: list[dict[str, Any]]) -> list[tuple[int | None, int | None, str | None]]:
    return [(row["day"], row["order"], row["prior"]) for row in table([{"patient": "p", **row} for row in rows])]


def test_days_count_from_the_first_study() -> None:
    assert placed([{"study": "b", "day": 12}, {"study": "a", "day": -5}, {"study": "c", "day": 30}]) == [
        (17, 1, "a"),
        (0, 0, None),
        (35, 2, "b"),
    ]


def test_order_stands_in_for_days() -> None:
    assert placed([{"study": "a", "order": 7}, {"study": "b", "order": 3}]) == [
        (None, 1, "b"),
        (None, 0, None),
    ]


def test_an_undated_study_is_not_placed_among_dated_ones() -> None:
    assert placed([{"study": "a", "day": 3}, {"study": "b"}, {"study": "c", "day": 4}]) == [
        (0, 0, None),
        (None, None, None),
        (1, 1, "a"),
    ]


def test_studies_that_nothing_tells_apart_are_no_prior_of_each_other() -> None:
    rows = [{"study": "a", "day": 1}, {"study": "b", "day": 1}, {"study": "c", "day": 2}]
    assert placed(rows) == [(0, 0, None), (0, 0, None), (1, 1, "a")]
    assert placed([{"study": "a"}, {"study": "b"}]) == [(None, None, None)] * 2


def test_order_breaks_ties_of_a_day() -> None:
    rows = [{"study": "a", "day": 1, "order": 2}, {"study": "b", "day": 1, "order": 1}]
    assert placed(rows) == [(0, 1, "b"), (0, 0, None)]


def test_images_of_a_study_share_its_place() -> None:
    rows = [{"study": "a", "day": 1}, {"study": "b", "day": 5}, {"study": "b", "day": 5}]
    assert placed(rows) == [(0, 0, None), (4, 1, "a"), (4, 1, "a")]


def test_a_single_study_is_the_first() -> None:
    assert placed([{"study": "a"}]) == [(None, 0, None)]
    assert placed([{"study": "a", "order": 4}]) == [(None, 0, None)]


def test_missing_labels_are_unmentioned() -> None:
    [row] = table([{"patient": "p", "study": "s", "label:Edema": 1}])
    assert row["label:Edema"] == Label.PRESENT and row["label:Fracture"] == Label.UNMENTIONED


def test_a_prior_has_a_compatible_view_and_is_not_too_old() -> None:
    rows = [
        {"patient": "p", "study": "a", "day": 0, "view": "PA"},
        {"patient": "p", "study": "b", "day": 10, "view": "LATERAL"},
        {"patient": "p", "study": "c", "day": 30, "view": "AP"},
        {"patient": "p", "study": "d", "day": 500, "view": "LATERAL"},
    ]
    named = [{"image": str(i), **row} for i, row in enumerate(rows)]

    def priors(rules: PairingRules | None) -> list[str | None]:
        return pa.concat_tables(fold(named, CHEXPERT, rules))["prior"].to_pylist()

    assert priors(None) == [None, None, "a", "b"]
    assert priors(PairingRules(max_gap_days=100)) == [None, None, "a", None]
    assert priors(PairingRules(frontal="same")) == [None, None, None, "b"]


@given(
    st.lists(
        st.tuples(st.sampled_from("pq"), st.integers(0, 6), st.none() | st.integers(-50, 50)),
        min_size=1,
        max_size=12,
    )
)
def test_a_prior_is_of_the_same_patient_and_strictly_earlier(
    studies: list[tuple[str, int, int | None]],
) -> None:
    rows = table([{"patient": p, "study": f"{p}{s}", "day": day} for p, s, day in studies])
    by_study = {row["study"]: row for row in rows}
    for row in rows:
        if row["prior"] is not None:
            prior = by_study[row["prior"]]
            assert prior["patient"] == row["patient"]
            assert prior["order"] == row["order"] - 1 and prior["day"] < row["day"]
    for patient in "pq":
        mine = [row for row in rows if row["patient"] == patient]
        days = [row["day"] for row in mine if row["day"] is not None]
        assert not days or min(days) == 0
        line = sorted((r["order"], r["day"]) for r in mine if r["order"] is not None and r["day"] is not None)
        assert all(a[1] <= b[1] for a, b in pairwise(line))
