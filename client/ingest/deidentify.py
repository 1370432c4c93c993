"""A radiograph -> a de-identified DICOM data set that is built anew: what is not written here cannot leave.

Basic Application Level Confidentiality Profile of PS3.15 Annex E with two options: 113107 (dates moved by
one secret shift per patient) and 113108 (of the patient's characteristics, sex and age in ten-year bands).
Every attribute that is written stands in :data:`WRITTEN` with how its value is made, and the table of the
standard has the last word: a value kept from the file is refused when the table has a row for its tag, so a
newer table can only take away. Attributes with a row that a CR or DX image does not need are left out,
whatever their action.

**Not protected here**: what a person can see in the pixels. BurnedInAnnotation YES is refused; look for
text in the image before this.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
)
from pydicom.valuerep import format_number_as_ds

from client.ingest.codes import Reason
from client.ingest.header import Header
from client.ingest.ps315 import Table, TableError
from client.ingest.pseudonym import Pseudonyms, parse_date
from client.ingest.radiograph import Radiograph
from client.ingest.refusal import Refusal
from client.ingest.voi import Lut, Rescale, Window
from models.studies.schema import age_band

METHOD = "fedcxr: built from an allow-list; PS3.15 Table E.1-1"
IMPLEMENTATION_UID = "2.25.306377425804105014066508090585246201497"
"""Of this software; says nothing about the site."""

Treatment = Literal["kept", "pseudonym", "shifted", "banded", "empty", "constant"]

WRITTEN: dict[str, Treatment] = {
    "ImageType": "kept",
    "SOPClassUID": "kept",
    "SOPInstanceUID": "pseudonym",
    "StudyDate": "shifted",
    "AcquisitionDate": "shifted",
    "ContentDate": "shifted",
    "StudyTime": "shifted",  # to the hour: enough to order a day, too little to find the study in a log
    "AccessionNumber": "empty",
    "Modality": "kept",
    "PresentationIntentType": "kept",
    "Manufacturer": "empty",
    "ReferringPhysicianName": "empty",
    "AnatomicRegionSequence": "constant",
    "PatientName": "pseudonym",
    "PatientID": "pseudonym",
    "PatientBirthDate": "empty",
    "PatientSex": "banded",
    "PatientAge": "banded",
    "PatientIdentityRemoved": "constant",
    "DeidentificationMethod": "constant",
    "DeidentificationMethodCodeSequence": "constant",
    "BodyPartExamined": "constant",
    "ViewPosition": "kept",
    "DetectorType": "empty",
    "StudyInstanceUID": "pseudonym",
    "SeriesInstanceUID": "pseudonym",
    "StudyID": "empty",
    "SeriesNumber": "kept",
    "InstanceNumber": "kept",
    "PatientOrientation": "kept",
    "ImageLaterality": "constant",
    "SamplesPerPixel": "constant",
    "PhotometricInterpretation": "kept",
    "Rows": "kept",
    "Columns": "kept",
    "PixelSpacing": "kept",
    "PixelAspectRatio": "kept",
    "ImagerPixelSpacing": "kept",
    "BitsAllocated": "kept",
    "BitsStored": "kept",
    "HighBit": "kept",
    "PixelRepresentation": "kept",
    "PixelPaddingValue": "kept",
    "PixelPaddingRangeLimit": "kept",
    "BurnedInAnnotation": "kept",
    "LongitudinalTemporalInformationModified": "constant",
    "WindowCenter": "kept",
    "WindowWidth": "kept",
    "RescaleIntercept": "kept",
    "RescaleSlope": "kept",
    "RescaleType": "constant",
    "VOILUTFunction": "kept",
    "LossyImageCompression": "kept",
    "ModalityLUTSequence": "kept",
    "VOILUTSequence": "kept",
    "LUTDescriptor": "kept",
    "LUTData": "kept",
    "ModalityLUTType": "constant",
    "ViewCodeSequence": "kept",
    "CodeValue": "constant",
    "CodingSchemeDesignator": "constant",
    "CodeMeaning": "constant",
    "PresentationLUTShape": "kept",
    "PixelData": "kept",
}
"""Every attribute of an exported file, and where its value comes from. ``kept`` values passed a check
first.
"""

OPTIONS = {
    "113100": "Basic Application Confidentiality Profile",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
    "113108": "Retain Patient Characteristics Option",
}
"""What is claimed, by code of context group 7050."""

_CLASSES = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)
_VIEW_CODES = {
    "PA": ("272479007", "postero-anterior"),
    "AP": ("399348003", "antero-posterior"),
    "LATERAL": ("399067008", "lateral"),
}
_POSITIONS = ("PA", "AP", "LL", "RL")
_ORIENTATION = re.compile(r"[LRAPHF]{1,3}")
_LARGEST_INDEX = 9999  # a longer series or instance number could be an identifier


def deidentify(image: Radiograph, pseudonyms: Pseudonyms, table: Table) -> Dataset:
    """A new data set with file meta information, to be written as explicit VR little endian.

    Raises:
        Refusal: BURNED_IN_DECLARED, NO_PATIENT_ID, MISSING_UID or WRONG_MODALITY.
        TableError: the table forbids an attribute that this software keeps.
    """
    header = image.header
    if header.burned_in_annotation.strip().upper() == "YES":
        raise Refusal(Reason.BURNED_IN_DECLARED)
    if not header.patient_id:
        raise Refusal(Reason.NO_PATIENT_ID)
    uids = (header.study_instance_uid, header.series_instance_uid, header.sop_instance_uid)
    if not all(uids):
        raise Refusal(Reason.MISSING_UID)
    if header.sop_class_uid not in _CLASSES or header.modality.strip().upper() not in ("CR", "DX"):
        raise Refusal(Reason.WRONG_MODALITY, "sop class")
    dataset = Dataset()
    _who(dataset, header, pseudonyms)
    _which(dataset, header, pseudonyms)
    _what(dataset, image)
    _how_shown(dataset, image)
    _pixels(dataset, image)
    _conformance(dataset, table)
    audit(dataset, table)
    dataset.file_meta = _meta(dataset)
    return dataset


def audit(dataset: Dataset, table: Table) -> None:
    """Deny by default: refuse a data set with an attribute that :data:`WRITTEN` or the table does not allow.

    Raises:
        TableError: naming the attribute.
    """
    for element in _elements(dataset):
        keyword = keyword_for_tag(element.tag)
        treatment = WRITTEN.get(keyword)
        action = table.action(int(element.tag))
        if treatment is None or (treatment == "kept" and action is not None):
            why = "not in the allow-list" if treatment is None else f"table {table.edition} says {action}"
            raise TableError(
                f"{keyword or 'private attribute'} {element.tag}: {why}; nothing was exported: "
                "use a release of this software that knows this table"
            )


def _elements(dataset: Dataset) -> Iterator[DataElement]:
    for element in dataset:
        yield element
        if element.VR == "SQ":
            for item in element.value:
                yield from _elements(item)


def _who(dataset: Dataset, header: Header, pseudonyms: Pseudonyms) -> None:
    name = pseudonyms.exported_patient(header.patient_id, header.issuer_of_patient_id)
    dataset.PatientName = name
    dataset.PatientID = name
    dataset.PatientBirthDate = ""
    sex = header.patient_sex.strip().upper()
    dataset.PatientSex = sex if sex in ("F", "M", "O") else ""
    band = age_band(age_in_years(header))
    if band != "UNKNOWN":
        dataset.PatientAge = f"{int(band[:2]):03d}Y"


def age_in_years(header: Header) -> float | None:
    """Age at the study, from PatientAge, else from the birth date; ``None`` where neither can be read."""
    stated = re.fullmatch(r"(\d{3})([DWMY])", header.patient_age.strip().upper())
    if stated:
        return int(stated[1]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[stated[2]]
    born, seen = parse_date(header.patient_birth_date), study_date(header)
    if born is None or seen is None or seen < born:
        return None
    return seen.year - born.year - ((seen.month, seen.day) < (born.month, born.day))


def study_date(header: Header) -> datetime.date | None:
    """The day of the study: the first readable of study, acquisition, content and series date."""
    dates = (
        header.study_date,
        header.acquisition_date,
        header.acquisition_date_time,
        header.content_date,
        header.series_date,
    )
    return next((date for date in map(parse_date, dates) if date), None)


def _which(dataset: Dataset, header: Header, pseudonyms: Pseudonyms) -> None:
    dataset.SOPClassUID = header.sop_class_uid
    dataset.SOPInstanceUID = pseudonyms.exported_uid(header.sop_instance_uid)
    dataset.StudyInstanceUID = pseudonyms.exported_uid(header.study_instance_uid)
    dataset.SeriesInstanceUID = pseudonyms.exported_uid(header.series_instance_uid)
    dataset.AccessionNumber = dataset.StudyID = dataset.ReferringPhysicianName = dataset.Manufacturer = ""
    dataset.SeriesNumber = _index(header.series_number)
    dataset.InstanceNumber = _index(header.instance_number)
    shift = pseudonyms.shift(header.patient_id, header.issuer_of_patient_id)
    dates = {"StudyDate": study_date(header)}
    dates |= {
        "AcquisitionDate": parse_date(header.acquisition_date),
        "ContentDate": parse_date(header.content_date),
    }
    for keyword, date in dates.items():
        if date is not None or keyword == "StudyDate":
            setattr(dataset, keyword, "" if date is None else (date + shift).strftime("%Y%m%d"))
    hour = re.match(r"([01]\d|2[0-3])", header.study_time.strip())
    dataset.StudyTime = f"{hour[1]}0000" if hour else ""


def _index(value: str) -> int | None:
    """A small number, else an empty value."""
    return int(value) if re.fullmatch(r"\d{1,4}", value) and int(value) <= _LARGEST_INDEX else None


def _what(dataset: Dataset, image: Radiograph) -> None:
    header = image.header
    types = [*header.image_type.upper().split("\\"), "", ""]
    dataset.ImageType = [
        types[0] if types[0] in ("ORIGINAL", "DERIVED") else "DERIVED",
        types[1] if types[1] in ("PRIMARY", "SECONDARY") else "SECONDARY",
    ]
    dataset.Modality = header.modality.strip().upper()
    dataset.BodyPartExamined = "CHEST" if image.chest else ""
    position = header.view_position.strip().upper()
    dataset.ViewPosition = position if position in _POSITIONS else image.view if image.view in ("PA", "AP") else ""
    if image.view in _VIEW_CODES:
        dataset.ViewCodeSequence = [_code(*_VIEW_CODES[image.view])]
    orientation = header.patient_orientation.strip().upper().split("\\")
    right = len(orientation) == 2 and all(_ORIENTATION.fullmatch(part) for part in orientation)
    dataset.PatientOrientation = orientation if right else ""
    if header.sop_class_uid != ComputedRadiographyImageStorage:
        raw = header.sop_class_uid == DigitalXRayImageStorageForProcessing
        dataset.PresentationIntentType = "FOR PROCESSING" if raw else "FOR PRESENTATION"
        if image.chest:
            dataset.AnatomicRegionSequence = [_code("816094009", "Chest")]
        dataset.ImageLaterality = "U"  # unpaired: a chest has no side
        dataset.DetectorType = ""
    if header.burned_in_annotation.strip().upper() == "NO":
        dataset.BurnedInAnnotation = "NO"


def _how_shown(dataset: Dataset, image: Radiograph) -> None:
    if isinstance(image.modality, Rescale):
        dataset.RescaleIntercept = _decimal(image.modality.intercept)
        dataset.RescaleSlope = _decimal(image.modality.slope)
        dataset.RescaleType = "US"
    else:
        item = _table(image.modality, image.signed)
        item.ModalityLUTType = "US"
        dataset.ModalityLUTSequence = [item]
    windows = [voi for voi in image.vois if isinstance(voi, Window)]
    tables = [voi for voi in image.vois if isinstance(voi, Lut)]
    if windows:
        dataset.WindowCenter = [_decimal(window.centre) for window in windows]
        dataset.WindowWidth = [_decimal(window.width) for window in windows]
        dataset.VOILUTFunction = windows[0].kind
    if tables:
        dataset.VOILUTSequence = [_table(table, image.signed) for table in tables]
    if image.shape:
        dataset.PresentationLUTShape = image.shape
    if image.lossy is not None:
        dataset.LossyImageCompression = "01" if image.lossy else "00"
    for keyword, pair in image.spacing.items():
        whole = keyword == "PixelAspectRatio"
        setattr(dataset, keyword, [round(v) for v in pair] if whole else [_decimal(v) for v in pair])


def _table(table: Lut, signed: bool) -> Dataset:
    """One item of a LUT sequence. Count and first value are 16-bit fields whose sign the VR gives."""
    fields = [len(table.entries) & 0xFFFF, table.first & 0xFFFF, table.bits]
    if signed:
        fields = [value - 0x10000 if value > 0x7FFF else value for value in fields]
    item = Dataset()
    item.add(DataElement(0x00283002, "SS" if signed else "US", fields))
    item.add(DataElement(0x00283006, "OW", table.entries.astype("<u2").tobytes()))
    return item


def _decimal(value: float) -> str:
    return format_number_as_ds(float(value))


def _pixels(dataset: Dataset, image: Radiograph) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = image.photometric
    dataset.Rows, dataset.Columns = image.pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = (
        image.allocated,
        image.stored,
        image.stored - 1,
    )
    dataset.PixelRepresentation = int(image.signed)
    words = _signed(image.pixels, image) if image.signed else image.pixels
    data = words.astype(words.dtype.newbyteorder("<")).tobytes()
    vr = "OW" if image.allocated == 16 else "OB"
    dataset.add(DataElement(0x7FE00010, vr, data + b"\0" * (len(data) % 2)))
    for tag, value in zip((0x00280120, 0x00280121), image.padding):
        value = int(_signed(np.array(value), image)) if image.signed else value
        dataset.add(DataElement(tag, "SS" if image.signed else "US", value))


def _signed(words: np.ndarray, image: Radiograph) -> np.ndarray:
    """Two's complement of the stored bits, widened to the allocated ones."""
    values = words.astype(np.int32)
    values = np.where(values >> (image.stored - 1) & 1, values - (1 << image.stored), values)
    return values.astype(np.int8 if image.allocated == 8 else np.int16)


def _code(value: str, meaning: str, scheme: str = "SCT") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _conformance(dataset: Dataset, table: Table) -> None:
    """PS3.15 E.1.1: who did what, by which edition."""
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = f"{METHOD} {table.edition}"
    dataset.DeidentificationMethodCodeSequence = [_code(code, meaning, "DCM") for code, meaning in OPTIONS.items()]
    dataset.LongitudinalTemporalInformationModified = "MODIFIED"


def _meta(dataset: Dataset) -> FileMetaDataset:
    """New file meta information: no application entity title, no private information."""
    meta: Any = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = "FEDCXR"
    return meta
