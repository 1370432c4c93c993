"""Only chest radiographs get in, in the words of several languages, and absence is no reason to refuse."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from client.ingest.codes import Reason
from client.ingest.gate import VIEWS, Gate, check_header, view_of
from client.ingest.header import Header
from client.ingest.refusal import Refusal
from models.config import ConfigError, build
from models.studies import schema

FRONTAL = Header(patient_id="1", modality="DX", body_part_examined="CHEST", view_position="PA")


def judged(gate: dict[str, Any] | None = None, **changes: Any) -> tuple[str, ...] | str:
    """(view, its source, source of "chest"), or the reason code."""
    try:
        passed = check_header(dataclasses.replace(FRONTAL, **changes), build(Gate, gate or {}))
    except Refusal as refusal:
        return refusal.reason.value
    return passed.view, passed.view_from, passed.chest_from


def test_views_are_those_of_the_store() -> None:
    assert VIEWS == schema.VIEWS


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("PA", "position", "body_part")),
        ({"modality": "CR"}, ("PA", "position", "body_part")),
        ({"modality": "CT"}, "wrong_modality"),
        ({"modality": ""}, "wrong_modality"),
        ({"modality": "RF"}, "wrong_modality"),
        ({"view_position": ""}, ("UNKNOWN", "none", "body_part")),
        ({"view_position": "LL"}, ("LATERAL", "position", "body_part")),
        ({"view_position": "LLO"}, "wrong_view"),
        ({"patient_id": ""}, "no_patient_id"),
        ({"burned_in_annotation": "YES"}, "burned_in_declared"),
        ({"burned_in_annotation": "NO"}, ("PA", "position", "body_part")),
        ({"presentation_intent_type": "FOR PROCESSING"}, "for_processing"),
        ({"presentation_intent_type": "FOR PRESENTATION"}, ("PA", "position", "body_part")),
        ({"patient_species_description": "Canine species"}, "not_human"),
        ({"patient_species_description": "Homo sapiens"}, ("PA", "position", "body_part")),
        ({"body_part_examined": ""}, ("PA", "position", "none")),
        ({"body_part_examined": "EXTREMITY"}, "wrong_body_part"),
        ({"body_part_examined": "TSPINE", "study_description": "Chest"}, "wrong_body_part"),
        ({"body_part_examined": "THORACIC SPINE"}, "wrong_body_part"),
        ({"body_part_examined": "EXTREMITY", "study_description": "Chest and hand"}, "wrong_body_part"),
        (
            {"body_part_examined": "OTHER", "series_description": "Thorax pa"},
            ("PA", "position", "description"),
        ),
        ({"body_part_examined": "", "series_description": "Abdomen"}, "wrong_body_part"),
        (
            {"body_part_examined": "", "series_description": "Chest", "study_description": "Chest, abdomen"},
            ("PA", "position", "description"),
        ),
        ({"body_part_examined": "", "region_codes": ("T-D3000",)}, ("PA", "position", "code")),
        ({"body_part_examined": "", "region_codes": ("T-D4000",)}, "wrong_body_part"),
    ],
)
def test_table(changes: dict[str, Any], expected: tuple[str, ...] | str) -> None:
    assert judged(**changes) == expected


@pytest.mark.parametrize(
    ("gate", "changes", "expected"),
    [
        ({"modalities": ["SC"]}, {"modality": "SC"}, "burned_in_unknown"),
        (
            {"modalities": ["SC"]},
            {"modality": "SC", "burned_in_annotation": "NO"},
            ("PA", "position", "body_part"),
        ),
        ({"modalities": ["SC"], "burned_in": "accept"}, {"modality": "SC"}, ("PA", "position", "body_part")),
        ({"burned_in": "accept"}, {"burned_in_annotation": "YES"}, ("PA", "position", "body_part")),
        ({"views": ["PA"]}, {"view_position": "AP"}, "wrong_view"),
        ({"views": ["PA"]}, {"view_position": ""}, "wrong_view"),
        ({"oblique": True}, {"view_position": "LAO"}, ("UNKNOWN", "position", "body_part")),
        ({"body_part": "any"}, {"body_part_examined": "HAND"}, ("PA", "position", "none")),
        (
            {"for_processing": True},
            {"presentation_intent_type": "FOR PROCESSING"},
            ("PA", "position", "body_part"),
        ),
        ({"animals": True}, {"patient_species_description": "Felis"}, ("PA", "position", "body_part")),
        ({"patient_id": "allow_absent"}, {"patient_id": ""}, ("PA", "position", "body_part")),
    ],
)
def test_configuration_opens_and_closes(gate: dict[str, Any], changes: dict[str, Any], expected) -> None:
    assert judged(gate, **changes) == expected


@pytest.mark.parametrize(
    "text",
    [
        "CHEST",
        "Chest_PA",
        "thorax",
        "THORAX AP",
        "Rx tórax",
        "Tórax",
        "Torace",
        "Poumons",
        "Poitrine face",
        "Lunge",
        "Brustkorb",
        "Borstkas",
        "Röntgen Thorax",
        "Bryst",
        "Klatka piersiowa",
        "płuca",
        "Hrudník",
        "Göğüs",
        "Akciğer grafisi",
        "Θώρακας",
        "Грудная клетка",
        "легкие",
        "胸部",
        "肺",
        "흉부",
        "ทรวงอก",
        "חזה",
        "صدر",
        "Ngực",
        "CXR",
        "Chest^Portable",
    ],
)
def test_chest_in_many_languages(text: str) -> None:
    assert judged(body_part_examined=text) == ("PA", "position", "body_part")
    assert judged(body_part_examined="", study_description=text) == ("PA", "position", "description")


@pytest.mark.parametrize(
    "text",
    ["ABDOMEN", "Hand", "KNEE", "Skull", "PELVIS", "BREAST", "Genou", "Schulter", "LSPINE", "HIP", "FOOT"],
)
def test_other_parts(text: str) -> None:
    assert judged(body_part_examined=text) == "wrong_body_part"


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("PA", "PA"),
        ("P.A.", "PA"),
        ("P-A", "PA"),
        ("AP", "AP"),
        ("AP ERECT", "AP"),
        ("POSTERO-ANTERIOR", "PA"),
        ("ANTERO_POSTERIOR", "AP"),
        ("LL", "LATERAL"),
        ("RL", "LATERAL"),
        ("LLAT", "LATERAL"),
        ("LATERAL", "LATERAL"),
        ("L LAT", "LATERAL"),
        ("Profil", "LATERAL"),
        ("seitlich", "LATERAL"),
        ("LAO", "OBLIQUE"),
        ("RPO", "OBLIQUE"),
        ("RLO", "OBLIQUE"),
        ("LLD", "OBLIQUE"),
        ("AP AXIAL", "OBLIQUE"),
        ("LORDOTIC", "OBLIQUE"),
        ("PA/LAT", "UNKNOWN"),
        ("W 12", "UNKNOWN"),
        ("", "UNKNOWN"),
    ],
)
def test_view_words(text: str, view: str) -> None:
    assert view_of(Header(view_position=text))[0] == view


def test_nearest_source_of_the_view_decides() -> None:
    assert view_of(Header(view_position="AP", view_codes=("R-10214",))) == ("AP", "position")
    assert view_of(Header(view_codes=("R-10214",), series_description="AP")) == ("PA", "code")
    assert view_of(Header(view_codes=("unheard",), series_description="Chest AP")) == ("AP", "description")
    assert view_of(Header(study_description="Chest PA")) == (
        "UNKNOWN",
        "none",
    )  # a study may hold several views


@pytest.mark.parametrize("values", [{"views": ["FRONTAL"]}, {"modalities": []}, {"views": []}, {"body_part": "lung"}])
def test_bad_configuration(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        build(Gate, values)


def test_codes_are_reason_codes() -> None:
    assert Reason("wrong_view") is Reason.WRONG_VIEW
