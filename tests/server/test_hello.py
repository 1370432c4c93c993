"""A site that says nonsense when it joins is left out; the run goes on with the others."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from flwr.app import Message

from client.app import carry
from models.config import read_yaml
from server.courier import NotEnoughSites
from server.hello import unsound, unsound_facts
from strategies.messages import Answer, Ask, Kind
from strategies.records import from_record, to_record
from tests.world import federate, write_store

PART = {"films": 10, "patients": 5, "positives": {"Edema": 3, "Fracture": None}}
SOUND = {"train": PART, "validation": PART}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return write_store(tmp_path_factory.mktemp("world") / "store", patients=8)


def saying(changes: dict):
    """A client whose site ``b`` says ``changes`` of itself when it joins."""

    def client(message, context):
        ask, reply = from_record(Ask, message.content), carry(message, context)
        if ask.kind is not Kind.HELLO or ask.site != "b":
            return reply
        answer = dataclasses.replace(from_record(Answer, reply.content), facts=changes)
        return Message(to_record(answer), reply_to=message)

    return client


def test_what_sites_really_say_is_sound(store, tmp_path):
    run = federate(tmp_path, store, phases__0__rounds=1)
    assert [site["name"] for site in read_yaml(run.path / "run.yaml")["sites"]] == ["a", "b", "c"]
    events = run.path / "events.jsonl"
    assert not events.exists() or "refused" not in events.read_text()


@pytest.mark.parametrize(
    "facts", [{"train": {}}, {"train": {**PART, "films": "many"}}, {}], ids=["none", "words", "empty"]
)
def test_the_run_goes_on_without_the_site(store, tmp_path, facts):
    run = federate(tmp_path, store, saying(facts), phases__0__rounds=1)
    events = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    refused = [e for e in events if e["event"] == "refused"]
    assert [(e["site"], e["code"]) for e in refused] == [("b", "bad_request")] and "hello" in refused[0]["text"]
    trained = {json.loads(line)["site"] for line in (run.path / "metrics.jsonl").read_text().splitlines()}
    assert {"a", "c"} <= trained and "b" not in trained


def test_too_few_sound_sites_end_the_run_in_words(store, tmp_path):
    with pytest.raises(NotEnoughSites, match="2 of at least 3 sites"):
        federate(tmp_path, store, saying({}), federation__min_sites=3)


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"validation": PART},
        {"train": None},
        {"train": [1]},
        {"train": {**PART, "films": 0}},
        {"train": {**PART, "films": -3}},
        {"train": {**PART, "films": True}},
        {"train": {**PART, "films": 3.5}},
        {"train": {"films": 3}},
        {"train": {**PART, "positives": None}},
        {"train": {**PART, "positives": {"Edema": "3"}}},
        {"train": PART, "validation": "none"},
        {"train": PART, "x" * 10_000: 3},
    ],
)
def test_counts_that_are_none_are_told(facts):
    assert unsound_facts(SOUND) is None
    text = unsound_facts(facts)
    assert text and len(text) < 200


PHASE = {"films": 3, "taught": ["Edema"], "why": ""}


@pytest.mark.parametrize(
    "phases",
    [
        None,
        3,
        "ab",
        [PHASE],
        [PHASE, None],
        [PHASE, {**PHASE, "films": -1}],
        [PHASE, {**PHASE, "films": True}],
        [PHASE, {**PHASE, "taught": "Edema"}],
        [PHASE, {**PHASE, "why": None}],
        [PHASE, {**PHASE, "why": "x" * 201}],
        [PHASE, PHASE, PHASE],
    ],
)
def test_counts_by_phase_must_be_of_the_plans_phases(phases):
    assert unsound_facts({**SOUND, "phases": [PHASE, {**PHASE, "films": 0}]}, 2) is None
    assert "phase" in unsound_facts({**SOUND, "phases": phases}, 2)
    assert "phase" in unsound(Answer(site="north", facts={**SOUND, "phases": phases}), (), 2)


@pytest.mark.parametrize("name", ["", "pooled", "a|b", "../x", "a/b", "a\nb", "-x", "x" * 65, "<b>"])
def test_a_name_that_would_break_files_keys_or_pages_is_refused(name):
    for good in ("north", "St. Mary-2", "klinik_süd"):
        assert unsound(Answer(site=good, facts=SOUND), ()) is None
    assert "name" in unsound(Answer(site=name, facts=SOUND), ())


def test_two_nodes_of_one_name_are_told_apart():
    assert "already joined as 'north'" in unsound(Answer(site="north", facts=SOUND), ["east", "north"])
