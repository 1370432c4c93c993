"""Longitudinal pairing against the definition written as loops, and its invariants."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.config import ConfigError, build
from models.studies.pairing import Link, PairingRules, Sighting, compatible, pair


@st.composite
def histories(draw: st.DrawFn) -> list[Sighting]:
    """Up to three patients; dated, ordered, partly dated or timeless histories."""
    sightings = []
    for patient in range(draw(st.integers(1, 3))):
        dated = draw(st.sampled_from(["all", "none", "some"]))
        ordered = draw(st.booleans())
        for study in range(draw(st.integers(1, 6))):
            has_day = dated == "all" or (dated == "some" and draw(st.booleans()))
            day = draw(st.integers(-20, 20)) if has_day else None
            order = draw(st.integers(0, 5)) if ordered else None
            for image in range(draw(st.integers(1, 3))):
                view = draw(st.sampled_from(["PA", "AP", "LATERAL", "UNKNOWN"]))
                sightings.append(
                    Sighting(f"p{patient}", f"p{patient}s{study}", f"p{patient}s{study}i{image}", view, day, order)
                )
    return draw(st.permutations(sightings))


RULES = st.builds(
    lambda low, extra, **others: PairingRules(
        min_gap_days=low, max_gap_days=None if extra is None else low + extra, **others
    ),
    low=st.integers(0, 5),
    extra=st.none() | st.integers(0, 30),
    frontal=st.sampled_from(["same", "mixed"]),
    unknown=st.booleans(),
    undated=st.booleans(),
)


def oracle(history: list[Sighting], rules: PairingRules) -> dict[str, tuple[str, int | None]]:
    """The definition in loops: for every image, every other image, keep the best so far."""
    answer: dict[str, tuple[str, int | None]] = {}
    for current in history:
        mine = [s for s in history if s.patient == current.patient]
        all_days = all(s.day is not None for s in mine)
        all_orders = all(s.order is not None for s in mine)
        best = None
        for prior in mine:
            if all_days:
                before = (prior.day, prior.order or 0) < (current.day, current.order or 0)
                time = (prior.day, prior.order or 0)
            elif all_orders:
                before, time = prior.order < current.order, (prior.order,)
            else:
                before = prior.day is not None and current.day is not None and prior.day < current.day
                time = (prior.day,)
            both = {prior.view, current.view}
            fits = (
                (len(both) == 1 and both != {"UNKNOWN"})
                or (both == {"PA", "AP"} and rules.frontal == "mixed")
                or (both == {"UNKNOWN"} and rules.unknown)
            )
            if not before or not fits or prior.study == current.study:
                continue
            if prior.day is None or current.day is None:
                gap = None
                if not rules.undated:
                    continue
            else:
                gap = current.day - prior.day
                if gap < rules.min_gap_days or gap < 0:
                    continue
                if rules.max_gap_days is not None and gap > rules.max_gap_days:
                    continue
            rank = (tuple(-t for t in time), prior.view != current.view, prior.study, prior.image)
            if best is None or rank < best[0]:
                best = (rank, prior.image, gap)
        if best is not None:
            answer[current.image] = (best[1], best[2])
    return answer


@given(histories(), RULES)
@settings(max_examples=300, deadline=None)
def test_pairs_are_those_of_the_definition(history: list[Sighting], rules: PairingRules) -> None:
    links = pair(history, rules)
    assert {link.current.image: (link.prior.image, link.gap_days) for link in links} == oracle(history, rules)
    assert len(links) == len({link.current.image for link in links})


@given(histories(), RULES, st.randoms(use_true_random=False), st.integers(-1000, 1000))
@settings(max_examples=100, deadline=None)
def test_input_order_and_origin_of_days_change_nothing(history, rules, rng, origin) -> None:
    links = pair(history, rules)
    shuffled = list(history)
    rng.shuffle(shuffled)
    assert pair(shuffled, rules) == links
    moved = [dataclasses.replace(s, day=None if s.day is None else s.day + origin) for s in history]
    assert [(x.current.image, x.prior.image, x.gap_days) for x in pair(moved, rules)] == [
        (x.current.image, x.prior.image, x.gap_days) for x in links
    ]


@given(histories(), RULES)
@settings(max_examples=100, deadline=None)
def test_a_stranger_changes_nothing(history: list[Sighting], rules: PairingRules) -> None:
    stranger = Sighting("stranger", "z", "zi", "PA", 0, 0)
    assert pair([*history, stranger], rules) == pair(history, rules)


def test_the_most_recent_compatible_study_wins() -> None:
    first = Sighting("p", "s1", "a", "PA", 0)
    lateral = Sighting("p", "s2", "b", "LATERAL", 5)
    portable = Sighting("p", "s3", "c", "AP", 8)
    now = Sighting("p", "s4", "d", "PA", 10)
    assert pair([now, lateral, first, portable]) == [Link(portable, first, 8), Link(now, portable, 2)]
    assert pair([now, lateral, first, portable], PairingRules(frontal="same")) == [Link(now, first, 10)]
    assert pair([now, first], PairingRules(max_gap_days=9)) == []


def test_studies_of_one_moment_are_no_priors() -> None:
    assert pair([Sighting("p", "s1", "a", "PA", 3), Sighting("p", "s2", "b", "PA", 3)]) == []
    ordered = [Sighting("p", "s1", "a", "PA", 3, 0), Sighting("p", "s2", "b", "PA", 3, 1)]
    assert [link.gap_days for link in pair(ordered)] == [0]


def test_two_times_for_one_study_are_refused() -> None:
    with pytest.raises(ValueError, match="two times"):
        pair([Sighting("p", "s", "a", "PA", 1), Sighting("p", "s", "b", "PA", 2)])


def test_an_unknown_view_word_is_refused() -> None:
    with pytest.raises(ValueError, match="'SIDE'"):
        compatible("SIDE", "PA", PairingRules())


def test_contradicting_gaps_name_both_keys() -> None:
    with pytest.raises(ConfigError, match=r"max_gap_days \(3\).*min_gap_days \(9\)"):
        build(PairingRules, {"max_gap_days": 3, "min_gap_days": 9})
    with pytest.raises(ConfigError, match="min_gap_days"):
        build(PairingRules, {"min_gap_days": -1})
