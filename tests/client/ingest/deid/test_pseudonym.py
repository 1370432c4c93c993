"""Pseudonyms: keyed, apart by purpose, and dates that move together."""

from __future__ import annotations

import datetime
import uuid
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.ingest.keys import SecretError
from client.ingest.pseudonym import EARLIEST, SHIFT_DAYS, Pseudonyms, parse_date

SECRET = b"a fixed secret for the tests ..."
NAMES = st.text(min_size=1, max_size=40)
DATES = st.dates(min_value=EARLIEST, max_value=datetime.date(2200, 1, 1))


@given(NAMES, st.lists(DATES, min_size=2, max_size=6))
def test_one_shift_keeps_every_interval_and_moves_every_date(patient: str, dates: list[datetime.date]) -> None:
    shift = Pseudonyms(SECRET).shift(patient)
    assert SHIFT_DAYS[0] <= -shift.days <= SHIFT_DAYS[1] and shift.seconds == 0 and shift.microseconds == 0
    moved = [date + shift for date in dates]
    assert [b - a for a, b in pairwise(moved)] == [b - a for a, b in pairwise(dates)]
    assert all(new < old for new, old in zip(moved, dates))


def test_shifts_fill_their_range_evenly() -> None:
    pseudonyms = Pseudonyms(SECRET)
    days = np.array([-pseudonyms.shift(f"patient {n}").days for n in range(20_000)])
    low, high = SHIFT_DAYS
    assert low <= days.min() < low + 5 and high - 5 < days.max() <= high
    counts, _ = np.histogram(days, bins=30, range=(low, high + 1))
    expected = 20_000 / 30
    assert ((counts - expected) ** 2 / expected).sum() < 60  # chi-square, 29 degrees: p below 0.001
    weekdays = np.bincount(days % 7, minlength=7)
    assert weekdays.min() > 0.9 * 20_000 / 7


@given(NAMES)
def test_uids_are_valid_keyed_and_stable(uid: str) -> None:
    made = Pseudonyms(SECRET).exported_uid(uid)
    number = int(made.removeprefix("2.25."))
    assert made == f"2.25.{number}" and len(made) <= 64
    assert uuid.UUID(int=number).version == 8 and uuid.UUID(int=number).variant == uuid.RFC_4122
    assert made == Pseudonyms(SECRET).exported_uid(uid)
    assert made != Pseudonyms(b"another secret of sixteen bytes").exported_uid(uid)


def test_uids_do_not_collide() -> None:
    pseudonyms = Pseudonyms(SECRET)
    assert len({pseudonyms.exported_uid(f"1.2.{n}") for n in range(50_000)}) == 50_000


def test_every_purpose_has_its_own_domain() -> None:
    p = Pseudonyms(SECRET)
    made = [p.patient("7"), p.study("7"), p.image("7"), p.accession("7"), p.exported_patient("7")]
    assert len(set(made)) == len(made)
    assert p.patient("7", "A") != p.patient("7", "B") != p.patient("7")
    assert p.patient("b", "a") != p.patient("ab", "")
    assert p.shift("7", "A") != p.shift("7", "B")


def test_padding_is_no_difference() -> None:
    p = Pseudonyms(SECRET)
    assert p.patient("7 ") == p.patient("7") == p.patient("7\0")
    assert p.study("1.2.3\0") == p.study("1.2.3")


@given(NAMES, DATES, DATES)
def test_days_differ_as_dates_do(patient: str, first: datetime.date, second: datetime.date) -> None:
    p = Pseudonyms(SECRET)
    key = p.patient(patient)
    assert p.day(key, second) - p.day(key, first) == (second - first).days


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(SecretError):
        Pseudonyms(b"short")


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("20200229", datetime.date(2020, 2, 29)),
        ("2020-02-29", datetime.date(2020, 2, 29)),
        ("2020.02.29", datetime.date(2020, 2, 29)),
        ("20200229123000.000000+0100", datetime.date(2020, 2, 29)),
        ("2020-02-29T12:30:00", datetime.date(2020, 2, 29)),
        ("20200229\0", datetime.date(2020, 2, 29)),
        ("20210229", None),
        ("00010101", None),
        ("18491231", None),
        ("2020", None),
        ("", None),
        ("\u0662\u0660\u0662\u0660\u0660\u0661\u0660\u0661", None),
    ],
)
def test_dates_are_read(text: str, date: datetime.date | None) -> None:
    assert parse_date(text) == date
