"""Reason codes of the quarantine: stable words that scripts and people can count on.

A code is never renamed. Its text says what is wrong and what to do, and holds nothing of the item itself.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why an item was not ingested."""

    MISSING_FILE = "missing_file"
    UNREADABLE_IMAGE = "unreadable_image"
    NOT_GREY = "not_grey"
    TOO_SMALL = "too_small"
    TOO_LARGE = "too_large"
    BLANK_IMAGE = "blank_image"
    BAD_ROW = "bad_row"
    CONFLICTING_DUPLICATE = "conflicting_duplicate"
    TIME_LIMIT = "time_limit"
    MEMORY_LIMIT = "memory_limit"
    CRASHED = "crashed"
    UNEXPECTED = "unexpected"
    NOT_DICOM = "not_dicom"
    TRUNCATED = "truncated"
    BAD_HEADER = "bad_header"
    HEADER_LIMIT = "header_limit"
    INFLATE_LIMIT = "inflate_limit"
    NO_PIXEL_DATA = "no_pixel_data"
    UNSUPPORTED_SYNTAX = "unsupported_syntax"
    UNSUPPORTED_BITS = "unsupported_bits"
    BAD_CODESTREAM = "bad_codestream"
    SIZE_MISMATCH = "size_mismatch"
    MULTI_FRAME = "multi_frame"
    COLOUR = "colour"
    NO_PHOTOMETRIC = "no_photometric"
    WRONG_MODALITY = "wrong_modality"
    WRONG_VIEW = "wrong_view"
    WRONG_BODY_PART = "wrong_body_part"
    NOT_HUMAN = "not_human"
    FOR_PROCESSING = "for_processing"
    BURNED_IN_DECLARED = "burned_in_declared"
    BURNED_IN_UNKNOWN = "burned_in_unknown"
    BURNED_IN_TEXT = "burned_in_text"
    NO_PATIENT_ID = "no_patient_id"
    IMPLAUSIBLE_SHAPE = "implausible_shape"
    SIDEWAYS = "sideways"
    INVERTED = "inverted"
    NOT_CHEST = "not_chest"
    MISSING_UID = "missing_uid"
    STUDY_TWO_PATIENTS = "study_two_patients"
    SHARED_ACCESSION = "shared_accession"
    AMBIGUOUS_ACCESSION = "ambiguous_accession"
    REPORT_UNMATCHED = "report_unmatched"
    REPORT_NO_KEY = "report_no_key"
    REPORT_CONFLICT = "report_conflict"
    REPORT_DATE = "report_date"
    REPORT_EMPTY = "report_empty"
    REPORT_ENCODING = "report_encoding"
    REPORT_MALFORMED = "report_malformed"
    STUDY_WITHOUT_REPORT = "study_without_report"
    SAME_PIXELS = "same_pixels"
    REPORT_HEADER_GONE = "report_header_gone"


ADVICE: dict[Reason, str] = {
    Reason.MISSING_FILE: "the manifest names a file that is not in the folder; check the path column",
    Reason.UNREADABLE_IMAGE: "the file is not a readable image; export it again",
    Reason.NOT_GREY: "a colour image whose channels differ; only grey radiographs are read",
    Reason.TOO_SMALL: "the image is smaller than the smallest allowed side",
    Reason.TOO_LARGE: ("the image has more pixels or bytes than the cap; raise the cap only for files you trust"),
    Reason.BLANK_IMAGE: "the image is constant; nothing was exposed or the window removed it",
    Reason.BAD_ROW: "a row's value is outside what its column allows; correct the row",
    Reason.CONFLICTING_DUPLICATE: "the same identifier came before with other content; keep one of the two",
    Reason.TIME_LIMIT: "reading took longer than the limit; the file is broken or hostile",
    Reason.MEMORY_LIMIT: "reading needed more memory than the limit; the file is broken or hostile",
    Reason.CRASHED: "the reader process died on this file; the file is broken or hostile",
    Reason.UNEXPECTED: ("an error nobody foresaw; please report the code of the exception class, never the file"),
    Reason.NOT_DICOM: "the file is not DICOM; if it is, its beginning is damaged: export it again",
    Reason.TRUNCATED: "the file ends before its contents do; copy or export it again",
    Reason.BAD_HEADER: (
        "a header value that decoding needs is missing, unreadable or contradicts another; export it again"
    ),
    Reason.HEADER_LIMIT: ("the header nests deeper or holds more elements than the cap; the file is broken or hostile"),
    Reason.INFLATE_LIMIT: "the deflated file grows beyond the cap; the file is broken or hostile",
    Reason.NO_PIXEL_DATA: "the file holds no image (a report, a plan, a directory); nothing to do",
    Reason.UNSUPPORTED_SYNTAX: (
        "no permissively licensed decoder reads this transfer syntax; export as JPEG 2000, JPEG-LS or uncompressed"
    ),
    Reason.UNSUPPORTED_BITS: ("only 8 to 16 bits in 8 or 16 allocated are read; export the image for presentation"),
    Reason.BAD_CODESTREAM: ("every decoder refused the compressed pixels; the file is damaged: export it again"),
    Reason.SIZE_MISMATCH: "the pixel data do not have the size that the header states; export it again",
    Reason.MULTI_FRAME: "more than one frame; only single radiographs are read",
    Reason.COLOUR: "colour pixels; only grey radiographs are read",
    Reason.NO_PHOTOMETRIC: (
        "the header does not say whether black or white is the lowest value; polarity is never guessed"
    ),
    Reason.WRONG_MODALITY: "not a modality that the site's configuration lets in",
    Reason.WRONG_VIEW: "not a view that the site's configuration lets in",
    Reason.WRONG_BODY_PART: "the header names another body part than the chest",
    Reason.NOT_HUMAN: "a veterinary image",
    Reason.FOR_PROCESSING: ("raw detector values, not meant to be looked at; export the image for presentation"),
    Reason.BURNED_IN_DECLARED: (
        "the header says that annotation is burned into the pixels; it may identify the patient"
    ),
    Reason.BURNED_IN_UNKNOWN: (
        "a screen capture that does not say whether annotation is burned in; look at it before letting it in"
    ),
    Reason.BURNED_IN_TEXT: (
        "text was found in the margin of the image; it may identify the patient: look at it before letting it in"
    ),
    Reason.NO_PATIENT_ID: "no patient identifier: the image cannot be kept with its patient's others",
    Reason.IMPLAUSIBLE_SHAPE: ("the image is far longer than wide, or wider than long, than any chest radiograph"),
    Reason.SIDEWAYS: (
        "the chest seems to lie on its side or upside down; turn it, or let such images in by configuration"
    ),
    Reason.INVERTED: (
        "black and white seem to be exchanged; correct the header, or let such images in by configuration"
    ),
    Reason.NOT_CHEST: ("the image does not look like a frontal or lateral chest; look at it before letting it in"),
    Reason.MISSING_UID: "a study, series or instance has no unique identifier; export it again",
    Reason.STUDY_TWO_PATIENTS: (
        "one study comes with two patient identifiers; nobody knows whose it is: merge the patients, or export again"
    ),
    Reason.SHARED_ACCESSION: (
        "two patients share this accession number, so a report cannot be matched by it; give the study UID"
    ),
    Reason.AMBIGUOUS_ACCESSION: ("several studies of one patient share this accession number; give the study UID"),
    Reason.REPORT_UNMATCHED: "no study with this study UID or accession number was ingested",
    Reason.REPORT_NO_KEY: "the report has neither a study UID nor an accession number",
    Reason.REPORT_CONFLICT: (
        "two different reports belong to one study; keep one, or mark the later one as an addendum"
    ),
    Reason.REPORT_DATE: "the report is dated too far from its study, so the match is doubtful",
    Reason.REPORT_EMPTY: "the report has no text",
    Reason.REPORT_ENCODING: (
        "the text is in none of the encodings that are tried; state its encoding in the configuration"
    ),
    Reason.REPORT_MALFORMED: (
        "the row is broken: another number of columns than the header, or a quote that never closes"
    ),
    Reason.STUDY_WITHOUT_REPORT: "the study was ingested, but no report belongs to it",
    Reason.SAME_PIXELS: (
        "the same picture came before as another patient's; nobody knows whose it is: look at both, keep one"
    ),
    Reason.REPORT_HEADER_GONE: (
        "the study was ingested before and its DICOM files are not in this folder, so the names in their headers cannot "
        "be looked for in the report; ingest the folder that holds them together with the reports"
    ),
}
