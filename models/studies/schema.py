"""The study store's schema: what may be stored, and nothing else (DESIGN section 4).

Every column of the store's table stands here; a writer refuses any other. No column holds a direct identifier:
``patient`` and ``study`` are keyed hashes whose key stays outside the store, ``day`` counts from the patient's
first study, ``age_band`` is ten years wide.
"""

from __future__ import annotations

import re
from enum import IntEnum

import pyarrow as pa

SCHEMA_VERSION = 1

CHEXPERT = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Lesion",
    "Lung Opacity",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""The 14 CheXpert classes (Irvin et al. 2019), in their usual order."""


class Label(IntEnum):
    """One finding of one image. The codes are CheXpert's; a blank is UNMENTIONED."""

    PRESENT = 1
    ABSENT = 0
    UNCERTAIN = -1
    UNMENTIONED = -2


VIEWS = ("PA", "AP", "LATERAL", "UNKNOWN")
SEXES = ("F", "M", "O", "UNKNOWN")
AGE_BANDS = ("UNKNOWN", *(f"{low:02d}-{low + 9:02d}" for low in range(0, 90, 10)), "90+")

FREE_LABEL = re.compile(r"[A-Z][A-Za-z0-9 +/-]{0,39}")
"""A site's own label: letters, digits and a few signs, at most 40, so that no free text fits in."""

LABEL_PREFIX = "label:"

COLUMNS: dict[str, pa.DataType] = {
    "image": pa.string(),  # keyed hash of the image; unique in the store
    "patient": pa.string(),  # keyed hash
    "study": pa.string(),  # keyed hash
    "day": pa.int32(),  # days since the patient's first study in this store's source; null if unknown
    "order": pa.int32(),  # rank of the study within the patient (0 first): orders studies that have no day
    "source": pa.string(),  # name of the layout or site the image came from; never a person
    "view": pa.string(),  # one of VIEWS
    "sex": pa.string(),  # one of SEXES
    "age_band": pa.string(),  # one of AGE_BANDS
    "height": pa.int32(),  # stored pixels
    "width": pa.int32(),
    "shard": pa.int32(),  # which shard file
    "offset": pa.int64(),  # first byte of the image in the shard
    "findings": pa.string(),  # scrubbed report section, null if none
    "impression": pa.string(),
    "prior": pa.string(),  # `study` of the prior study, null if none
    "flags": pa.string(),  # comma-separated quality flags, e.g. "inverted:0.93"
    "digest": pa.string(),  # keyed hash of the source file's bytes
}


def age_band(age: float | None) -> str:
    """Ten-year band of an age in years; ``UNKNOWN`` for none, negative or impossible ages (> 120)."""
    if age is None or not 0 <= age <= 120:
        return "UNKNOWN"
    return "90+" if age >= 90 else f"{int(age) // 10 * 10:02d}-{int(age) // 10 * 10 + 9:02d}"


def label_column(finding: str) -> str:
    """Column name of a finding.

    Raises:
        ValueError: for a name that is neither a CheXpert class nor a well-formed free label.
    """
    if finding not in CHEXPERT and not FREE_LABEL.fullmatch(finding):
        raise ValueError(
            f"label {finding!r} is not allowed: use a CheXpert class or a short name "
            f"(a capital first, then letters, digits, space, + / -; at most 40)"
        )
    return LABEL_PREFIX + finding


def table_schema(findings: tuple[str, ...]) -> pa.Schema:
    """Arrow schema of a store that carries the 14 CheXpert classes and the free labels among ``findings``."""
    free = [f for f in findings if f not in CHEXPERT]
    fields = [pa.field(name, kind) for name, kind in COLUMNS.items()]
    fields += [pa.field(label_column(f), pa.int8()) for f in (*CHEXPERT, *sorted(free))]
    return pa.schema(fields)
