"""Only chest radiographs get in: modality, view, body part, species, burned-in annotation, patient
identifier.

Judged on header values alone, before any pixel is decoded: a PACS export of CT slices costs a header each.
Headers are wrong often enough that absence is never a reason to refuse (35 % of real chest radiographs name
no view), and that the image itself is checked afterwards (:mod:`client.ingest.quality`).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from client.ingest.codes import Reason
from client.ingest.header import Header
from client.ingest.refusal import Refusal
from models.config import config

VIEWS = ("PA", "AP", "LATERAL", "UNKNOWN")
"""As in ``models.studies.schema``, which the child does not load: pyarrow maps half its address space."""


@config
class Gate:
    """What the site lets in."""

    modalities: tuple[str, ...] = ("CR", "DX")  # "RF", "SC" and others only if the site asks for them
    views: tuple[str, ...] = VIEWS
    oblique: bool = False  # oblique, lordotic, axial and decubitus projections: let in as UNKNOWN
    body_part: Literal["chest", "any"] = "chest"
    for_processing: bool = False  # raw detector values
    animals: bool = False
    burned_in: Literal["refuse", "accept"] = "refuse"  # BurnedInAnnotation YES, or absent on a screen capture
    patient_id: Literal["require", "allow_absent"] = "require"

    def check(self) -> None:
        unknown = sorted(set(self.views) - set(VIEWS))
        if unknown:
            raise ValueError(f"views: {', '.join(unknown)} not known; allowed: {', '.join(VIEWS)}")
        if not self.modalities or not self.views:
            raise ValueError("modalities, views: each needs at least one value, or nothing would ever get in")


@dataclass(frozen=True)
class Passed:
    """What the gate found: the view and where it came from, and what decided that this is a chest."""

    view: str
    view_from: str  # "position", "code", "description", "none"
    chest_from: str  # "body_part", "code", "description", "none" (nothing said so, nothing denied it)


CAPTURES = ("SC", "OT", "XC")
"""Modalities of screen captures and scans; burned-in text is the rule there, not the exception."""

_VIEW_CODES = {
    # CID 4010, SNOMED CT and the SNOMED RT codes that older machines write
    "399348003": "AP",
    "R-10206": "AP",
    "272479007": "PA",
    "R-40888": "PA",
    "R-10214": "PA",
    "399067008": "LATERAL",
    "R-102CD": "LATERAL",
    "399173006": "LATERAL",
    "R-10236": "LATERAL",
    "399198007": "LATERAL",
    "R-10232": "LATERAL",
}
_CHEST_CODES = frozenset(["51185008", "816094009", "43799004", "39607008", "T-D3000", "T-D3200", "T-D3300", "T-28000"])

_OBLIQUE = re.compile(r"OBL|\b[RL][AP]O\b|\b[RL]LO\b|LORDOT|AXIAL|DECUB|\b[RL]LD\b|TANGENT")
_PA = re.compile(r"\bP ?A\b|POSTERO ?-?ANTERIOR|POSTEROANT|\bD ?V\b|DORSO ?-?VENTRAL")
_AP = re.compile(r"\bA ?P\b|ANTERO ?-?POSTERIOR|ANTEROPOST|\bV ?D\b|VENTRO ?-?DORSAL")
_LATERAL = re.compile(r"\b[LR]?LAT|\b[LR]L\b|PROFIL|PERFIL|SEITLICH|\bLATERO|ZIJDELINGS|SIDEBILD|BOCZN|\bYAN\b")

_CHEST = re.compile(
    # English, Latin, French, Spanish, Portuguese, Italian, German, Dutch, Nordic, Polish, Czech, Turkish
    r"CHEST|CXR|THORA[XCK]|TORA[XCK]|POITRINE|POUMON|PULM[O0]|PECHO|PETTO|LUNGE|LUNGS?\b|BRUST|BORST"
    r"|BRYST|BROST|KLATK|P[LŁ]UC|HRUDNIK|GOGUS|AKCIGER|RINTAKEH"
    # Greek, Russian, Arabic, Hebrew, Chinese, Japanese, Korean, Thai, Vietnamese
    r"|ΘΩΡΑΚ|ГРУД|ЛЕГК|صدر|חזה|胸|肺|흉부|ทรวงอก|NGUC\b|PHOI\b"
)
_VAGUE = re.compile(r"^(|UNKNOWN|OTHER|OTHERS?|NONE|NA|N A|UNDEFINED|UNSPECIFIED|GENERAL|BODY|TRUNK|DEFAULT|ANY|MISC)$")
_ELSEWHERE = re.compile(
    r"ABDOM|\bKUB\b|PELVI|\bHIP\b|KNEE|ANKLE|FOOT|\bHAND\b|WRIST|ELBOW|SHOULDER|SKULL|SINUS|DENTAL|JAW|PANORAM"
    r"|CERVICAL|LUMBAR|L[ -]?SPINE|C[ -]?SPINE|EXTREMIT|FEMUR|TIBIA|HUMERUS|FOREARM|BREAST|MAMMO|HEAD\b|NECK"
    r"|GENOU|EPAULE|RODILLA|GINOCCHIO|BECKEN|\bKNIE\b|SCHULTER|SCHADEL"
)
_SPINE = re.compile(r"SPINE|WIRBEL|RACHIS|COLONNA|COLUMNA|COLUNA|VERTEBR|\bBWS\b|KREGOSLUP")
_HUMAN = re.compile(r"HUMAN|HOMO SAPIENS|337915000")


def check_header(header: Header, gate: Gate) -> Passed:
    """Judge one header.

    Raises:
        Refusal: WRONG_MODALITY, NOT_HUMAN, FOR_PROCESSING, BURNED_IN_DECLARED, BURNED_IN_UNKNOWN,
            WRONG_BODY_PART, WRONG_VIEW or NO_PATIENT_ID, in this order.
    """
    modality = _plain(header.modality)
    if modality not in gate.modalities:
        raise Refusal(Reason.WRONG_MODALITY, "absent" if not modality else "")
    species = _plain(header.patient_species_description)
    if species and not _HUMAN.search(species) and not gate.animals:
        raise Refusal(Reason.NOT_HUMAN)
    if _plain(header.presentation_intent_type) == "FOR PROCESSING" and not gate.for_processing:
        raise Refusal(Reason.FOR_PROCESSING)
    if gate.burned_in == "refuse":
        declared = _plain(header.burned_in_annotation)
        if declared == "YES":
            raise Refusal(Reason.BURNED_IN_DECLARED)
        if declared != "NO" and modality in CAPTURES:
            raise Refusal(Reason.BURNED_IN_UNKNOWN)
    chest_from = chest_of(header) if gate.body_part == "chest" else "none"
    view, view_from = view_of(header)
    if view == "OBLIQUE":
        if not gate.oblique:
            raise Refusal(Reason.WRONG_VIEW, "oblique")
        view = "UNKNOWN"
    if view not in gate.views:
        raise Refusal(Reason.WRONG_VIEW, view.lower())
    if not header.patient_id and gate.patient_id == "require":
        raise Refusal(Reason.NO_PATIENT_ID)
    return Passed(view, view_from, chest_from)


def view_of(header: Header) -> tuple[str, str]:
    """(one of VIEWS or "OBLIQUE", where it was found). The nearest source that says anything decides."""
    position = _plain(header.view_position)
    found = _view_in(position)
    if found:
        return found, "position"
    for code in header.view_codes:
        if code in _VIEW_CODES:
            return _VIEW_CODES[code], "code"
    for text in (header.series_description, header.protocol_name):
        found = _view_in(_plain(text))
        if found:
            return found, "description"
    return "UNKNOWN", "none"


def _view_in(text: str) -> str:
    """The one view that a text names, or "" for none or several ("PA AND LAT")."""
    if not text:
        return ""
    if _OBLIQUE.search(text):
        return "OBLIQUE"
    found = [view for view, words in (("PA", _PA), ("AP", _AP), ("LATERAL", _LATERAL)) if words.search(text)]
    return found[0] if len(found) == 1 else ""


def chest_of(header: Header) -> str:
    """What says that this is a chest; the nearest source that says anything decides.

    Raises:
        Refusal: WRONG_BODY_PART.
    """
    part = _plain(header.body_part_examined)
    if _names_chest(part):
        return "body_part"
    if not _VAGUE.match(part):
        raise Refusal(Reason.WRONG_BODY_PART, "body part")
    if header.region_codes:
        if _CHEST_CODES & set(header.region_codes):
            return "code"
        raise Refusal(Reason.WRONG_BODY_PART, "code")
    # A series is one exam; a study may hold several, so the series speaks first.
    for text in (
        header.series_description,
        header.protocol_name,
        header.requested_procedure_description,
        header.study_description,
    ):
        plain = _plain(text)
        if _names_chest(plain):
            return "description"
        if _SPINE.search(plain) or _ELSEWHERE.search(plain):
            raise Refusal(Reason.WRONG_BODY_PART, "description")
    return "none"


def _names_chest(plain: str) -> bool:
    """Whether a text names the chest, and not the thoracic spine."""
    return bool(_CHEST.search(plain)) and not _SPINE.search(plain)


def _plain(text: str) -> str:
    """Upper case, without accents, runs of other signs as one space."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", text.upper()) if not unicodedata.combining(c))
    return re.sub(r"[\W_]+", " ", unicodedata.normalize("NFC", bare)).strip()
