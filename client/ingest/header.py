"""The header values that leave the child process, beside the pixels: an allow-list, typed, short.

They are raw and identify the patient. The parent needs them to hash keys, to reckon days and to scrub names
from reports; it never writes them to disk, to a log or into an error. ``repr`` shows none of them.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

MAX_VALUE = 512
"""Longest value kept, in characters. PS3.5 allows 64 for most of these; exporters write more."""

MAX_ITEMS = 8
"""Most items of a code sequence that are read."""


@dataclass(frozen=True, repr=False, kw_only=True)
class Header:
    """Raw header values as text; an absent or unreadable value is ``""``, several values are joined by a
    backslash.

    ``view_codes`` and ``region_codes`` are the code values of the view and anatomic region sequences;
    ``damaged`` names the fields that are in the file but could not be read, or were cut to length: a
    scrubber that relies on them must be told.
    """

    # who
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    other_patient_ids: str = ""
    patient_name: str = ""
    other_patient_names: str = ""
    patient_birth_name: str = ""
    patient_mother_birth_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    patient_age: str = ""
    patient_address: str = ""
    patient_telephone_numbers: str = ""
    patient_species_description: str = ""
    responsible_person: str = ""
    # which
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_instance_uid: str = ""
    sop_class_uid: str = ""
    accession_number: str = ""
    study_id: str = ""
    series_number: str = ""
    instance_number: str = ""
    # when
    study_date: str = ""
    study_time: str = ""
    series_date: str = ""
    series_time: str = ""
    acquisition_date: str = ""
    acquisition_time: str = ""
    acquisition_date_time: str = ""
    content_date: str = ""
    content_time: str = ""
    # by whom and where
    referring_physician_name: str = ""
    performing_physician_name: str = ""
    name_of_physicians_reading_study: str = ""
    physicians_of_record: str = ""
    requesting_physician: str = ""
    operators_name: str = ""
    institution_name: str = ""
    institution_address: str = ""
    institutional_department_name: str = ""
    station_name: str = ""
    manufacturer: str = ""
    manufacturer_model_name: str = ""
    # what
    modality: str = ""
    view_position: str = ""
    body_part_examined: str = ""
    study_description: str = ""
    series_description: str = ""
    protocol_name: str = ""
    requested_procedure_description: str = ""
    image_type: str = ""
    conversion_type: str = ""
    presentation_intent_type: str = ""
    burned_in_annotation: str = ""
    patient_orientation: str = ""
    laterality: str = ""
    image_laterality: str = ""
    view_codes: tuple[str, ...] = ()
    region_codes: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()

    def __repr__(self) -> str:
        known = sum(bool(getattr(self, f.name)) for f in dataclasses.fields(self))
        return f"Header({known} values, not shown)"

    def plain(self) -> dict[str, str | list[str]]:
        """Non-empty values, ready for JSON."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if v}

    @classmethod
    def from_plain(cls, values: object) -> Header:
        """Rebuild from JSON that an untrusted child sent: known keys, text only, lengths enforced.

        Raises:
            ValueError: for anything else; the text names no value.
        """
        if not isinstance(values, dict) or not set(values) <= _FIELDS.keys():
            raise ValueError("header: unknown key; the child process sent something else than a header")
        for key, value in values.items():
            items = value if isinstance(value, list) else [value]
            if isinstance(value, list) != (_FIELDS[key] is tuple) or len(items) > MAX_ITEMS:
                raise ValueError(f"header: {key} has the wrong shape")
            if not all(isinstance(item, str) and len(item) <= MAX_VALUE for item in items):
                raise ValueError(f"header: {key} is not text of at most {MAX_VALUE} characters")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


_FIELDS: dict[str, type] = {f.name: tuple if f.default == () else str for f in dataclasses.fields(Header)}

_IRREGULAR = {
    "patient_id": "PatientID",
    "issuer_of_patient_id": "IssuerOfPatientID",
    "other_patient_ids": "OtherPatientIDs",
    "patient_mother_birth_name": "PatientMotherBirthName",
    "study_instance_uid": "StudyInstanceUID",
    "series_instance_uid": "SeriesInstanceUID",
    "sop_instance_uid": "SOPInstanceUID",
    "sop_class_uid": "SOPClassUID",
    "study_id": "StudyID",
    "name_of_physicians_reading_study": "NameOfPhysiciansReadingStudy",
    "physicians_of_record": "PhysiciansOfRecord",
}

_KEYWORD_OF = {
    name: _IRREGULAR.get(name, "".join(word.capitalize() for word in name.split("_")))
    for name, kind in _FIELDS.items()
    if kind is str
}

_TAG_OF = {name: Tag(keyword) for name, keyword in _KEYWORD_OF.items()}

KEYWORDS = tuple(_KEYWORD_OF.values())
"""DICOM keywords of the allow-list."""


def read_header(dataset: Dataset) -> Header:
    """Header values of a data set. A value that cannot be read counts as absent and is named in
    ``damaged``."""
    values: dict[str, Any] = {}
    damaged = []
    for name, tag in _TAG_OF.items():
        if tag not in dataset:
            continue
        values[name], whole = _text(dataset, tag)
        if not whole:
            damaged.append(name)
    values["view_codes"] = _codes(dataset, "ViewCodeSequence")
    values["region_codes"] = _codes(dataset, "AnatomicRegionSequence")
    return Header(**values, damaged=tuple(damaged[:MAX_ITEMS]))


def _text(dataset: Dataset, tag: BaseTag) -> tuple[str, bool]:
    """(the value as text, read whole?)"""
    try:
        value = dataset[tag].value
        if value is None:
            return "", True
        if isinstance(value, MultiValue):
            value = "\\".join(str(part) for part in value)
        kept = _clean(str(value))
        return kept[:MAX_VALUE], len(kept) <= MAX_VALUE
    except MemoryError:
        raise
    except Exception:  # bad character sets, wrong VRs: whatever pydicom stumbles over, the value is unreadable
        return "", False


def _codes(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    try:
        items = dataset.get(keyword) or ()
        found = (_clean(str(item.get("CodeValue", "")))[:MAX_VALUE] for item in items[:MAX_ITEMS])
        return tuple(code for code in found if code)
    except MemoryError:
        raise
    except Exception:  # as above
        return ()


def _clean(text: str) -> str:
    """Without control characters and lone surrogates, trimmed; at most a little longer than ``MAX_VALUE``."""
    return "".join(c for c in text[: 4 * MAX_VALUE] if unicodedata.category(c) not in ("Cc", "Cs")).strip()
