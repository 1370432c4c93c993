"""Reads one DICOM file from start to finish: header, gate, pixels, checks. Runs inside the child process."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from client.ingest.codes import Reason
from client.ingest.decode import DecodeConfig, decode_source
from client.ingest.gate import Gate, check_header
from client.ingest.header import Header, read_header
from client.ingest.limits import Limits
from client.ingest.part10 import open_source
from client.ingest.quality import QualityConfig, assess
from client.ingest.refusal import Refusal
from models.config import config


@config
class ReadConfig:
    """Everything that decides whether and how a DICOM file becomes an image."""

    decode: DecodeConfig = DecodeConfig()
    gate: Gate = Gate()
    quality: QualityConfig = QualityConfig()
    limits: Limits = Limits()
    digest: bool = True  # hash the file: a third of the time of an uncompressed image, nothing of a compressed one


@dataclass(frozen=True)
class Reading:
    """An accepted image.

    ``pixels`` is uint8 (H, W); ``applied`` records every step of decoding; ``flags`` names what a person
    should review, some as ``name:score``; ``scores`` holds every quality score. ``digest`` is the SHA-256
    of the file's bytes: it identifies the file, so it is stored only under a keyed hash.
    """

    header: Header
    view: str
    view_from: str
    chest_from: str
    pixels: np.ndarray
    applied: dict[str, Any]
    flags: tuple[str, ...]
    scores: dict[str, float]
    digest: str = field(repr=False)


@dataclass(frozen=True)
class Refused:
    """A file that is not ingested. ``header`` is there if reading came that far."""

    reason: Reason
    note: str = ""  # a fixed word of ours or a class name, never a value of the file
    header: Header | None = None
    digest: str = field(default="", repr=False)


@dataclass(frozen=True)
class Heading:
    """The header alone, of a file whose pixels are not wanted."""

    header: Header


def read_heading(data: bytes, limits: Limits) -> Heading | Refused:
    """Read the header of one file given as bytes. Never raises."""
    try:
        return Heading(read_header(open_source(data, limits).dataset))
    except Refusal as refusal:
        return Refused(refusal.reason, refusal.note)
    except MemoryError:
        return Refused(Reason.MEMORY_LIMIT)
    except RecursionError:
        return Refused(Reason.HEADER_LIMIT, "recursion")
    except Exception as error:
        return Refused(Reason.UNEXPECTED, type(error).__name__)


def read(data: bytes, config: ReadConfig) -> Reading | Refused:
    """Read one file given as bytes. Never raises: whatever happens has a reason code."""
    digest = hashlib.sha256(data).hexdigest() if config.digest else ""
    header: Header | None = None
    try:
        source = open_source(data, config.limits)
        header = read_header(source.dataset)
        if source.pixels is None:
            raise Refusal(Reason.NO_PIXEL_DATA)
        passed = check_header(header, config.gate)
        decoded = decode_source(source, config.decode, config.limits)
        quality = assess(decoded.pixels, passed.view, config.quality)
    except Refusal as refusal:
        return Refused(refusal.reason, refusal.note, header, digest)
    except MemoryError:
        return Refused(Reason.MEMORY_LIMIT, "", header, digest)
    except RecursionError:
        return Refused(Reason.HEADER_LIMIT, "recursion", header, digest)
    except Exception as error:
        return Refused(Reason.UNEXPECTED, type(error).__name__, header, digest)
    return Reading(
        header=header,
        view=passed.view,
        view_from=passed.view_from,
        chest_from=passed.chest_from,
        pixels=decoded.pixels,
        applied=decoded.applied,
        flags=(*decoded.flags, *quality.flags),
        scores=quality.scores,
        digest=digest,
    )
