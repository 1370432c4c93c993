"""How a hospital files its films and words its reports: what ingestion has to cope with."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from models.config import ConfigError, config

Syntax = Literal[
    "implicit",
    "explicit",
    "big endian",
    "deflated",
    "RLE",
    "JPEG",
    "JPEG lossless",
    "JPEG-LS",
    "JPEG 2000",
    "JPEG 2000 lossy",
]
Window = Literal["none", "linear", "exact", "sigmoid", "table", "two windows"]

_SYNTAXES: dict[Syntax, float] = {
    "implicit": 0.20,
    "explicit": 0.28,
    "big endian": 0.03,
    "deflated": 0.03,
    "RLE": 0.07,
    "JPEG": 0.02,
    "JPEG lossless": 0.15,
    "JPEG-LS": 0.08,
    "JPEG 2000": 0.11,
    "JPEG 2000 lossy": 0.03,
}
_BITS: dict[Literal["8", "10", "12", "14", "15", "16"], float] = {
    "8": 0.02,
    "10": 0.04,
    "12": 0.66,
    "14": 0.07,
    "15": 0.17,
    "16": 0.04,
}
_WINDOWS: dict[Window, float] = {
    "none": 0.12,
    "linear": 0.50,
    "exact": 0.06,
    "sigmoid": 0.10,
    "table": 0.14,
    "two windows": 0.08,
}


def _shares(where: str, values: dict[str, float]) -> None:
    if not values or any(v < 0 for v in values.values()) or abs(sum(values.values()) - 1) > 1e-6:
        raise ConfigError(f"{where}: shares of at least 0 that sum to 1 are needed, got {values}")


@config
class Archive:
    """The PACS. Each share is a probability per film, each table sums to 1."""

    makers: tuple[str, ...] = ("Lumenray", "Ostrava Medical Optics", "Kestrel Imaging")
    syntaxes: dict[Syntax, float] = field(default_factory=lambda: dict(_SYNTAXES))
    bits: dict[Literal["8", "10", "12", "14", "15", "16"], float] = field(default_factory=lambda: dict(_BITS))
    windows: dict[Window, float] = field(default_factory=lambda: dict(_WINDOWS))
    inverted: float = 0.48  # stored as MONOCHROME1
    viewless: float = 0.35  # without ViewPosition
    digital: float = 0.01  # DX instead of CR
    padded: float = 0.15  # with a padding value around the picture
    repeated: float = 0.02  # exported twice, under two file names

    def check(self) -> None:
        for name in ("syntaxes", "bits", "windows"):
            _shares(f"archive.{name}", getattr(self, name))
        for name in ("inverted", "viewless", "digital", "padded", "repeated"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"archive.{name}: {getattr(self, name)} is not a share in 0 .. 1")
        if not self.makers:
            raise ConfigError("archive.makers: at least one name is needed")


@config
class Dictation:
    """How reports look and are filed. Each share is a probability per report."""

    headings: Literal["colon", "bare", "mixed"] = "colon"  # "FINDINGS:", "Findings" on a line of its own, both
    upper: float = 0.1  # all in capitals
    short: float = 0.2  # abbreviated words
    impression_only: float = 0.15
    unheaded: float = 0.1  # prose without any heading
    compares: float = 0.85  # speaks of the prior film where there is one
    addenda: float = 0.05
    slips: float = 0.03  # a word with two letters exchanged
    missing: float = 0.03  # studies without a report
    strays: float = 0.02  # reports without a study
    lines: Literal["LF", "CRLF", "CR"] = "LF"
    kept_as: Literal["csv", "folder"] = "csv"  # one table, or one text file per study
    key: Literal["study_uid", "accession"] = "accession"
    encoding: Literal["utf-8", "utf-8-sig", "cp1252"] = "utf-8"
    delimiter: Literal[",", ";"] = ","

    def check(self) -> None:
        for name in (
            "upper",
            "short",
            "impression_only",
            "unheaded",
            "compares",
            "addenda",
            "slips",
            "missing",
            "strays",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"dictation.{name}: {getattr(self, name)} is not a share in 0 .. 1")
        if self.impression_only + self.unheaded > 1:
            raise ConfigError("dictation: impression_only and unheaded exclude each other; their sum is above 1")
