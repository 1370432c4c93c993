"""A small phantom hospital, and the files of single studies made by hand."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client.ingest.intake import Intake, Settings, Summary
from client.ingest.phantom.hospital import write_hospital
from client.ingest.phantom.style import STYLES
from client.ingest.walk import item_name
from models.studies.store import Store
from tests.client.ingest.dicom import maker

SECRET = bytes(range(32))


@dataclasses.dataclass
class Hospital:
    """A folder with ``dicom``, ``reports.csv`` and the truth, one line per file."""

    path: Path
    truth: list[dict[str, Any]]

    @property
    def dicom(self) -> Path:
        return self.path / "dicom"

    @property
    def reports(self) -> Path:
        return self.path / "reports.csv"


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    """Ten patients of the north site with some repeated exports; never written to by a test."""
    path = tmp_path_factory.mktemp("hospital") / "north"
    style = STYLES["north"]
    style = dataclasses.replace(style, archive=dataclasses.replace(style.archive, repeated=0.1))
    write_hospital(path, style, 10, 3, 160, workers=2)
    return Hospital(path, [json.loads(line) for line in (path / "truth.jsonl").read_text("utf-8").splitlines()])


class Site:
    """A site's folders below ``path``; ``ingest`` runs once and returns the summary."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dicom, self.store, self.index = path / "dicom", path / "store", path / "private.index"
        self.dicom.mkdir()
        self.written = 0

    def ingest(self, reports: Path | None = None, dicom: Path | None = None, **settings: Any) -> Summary:
        if "report_config" in settings:
            settings["reports"] = settings.pop("report_config")
        settings = {"source": "north", "workers": 1, **settings}
        with Intake(dicom or self.dicom, self.store, self.index, Settings(**settings), SECRET, reports) as intake:
            return intake.run()

    def write(self, name: str = "", **header: Any) -> Path:
        """A DICOM file; every one has pixels of its own unless ``pixels`` are given."""
        self.written += 1
        pixels = header.pop("pixels", None)
        if pixels is None:
            pixels = maker.chest(160, 150)
            pixels[:8, :8] += self.written
        path = self.dicom / (name or f"{self.written:03d}.dcm")
        path.write_bytes(maker.write(maker.dataset(pixels, 12, **header)))
        return path

    def rows(self) -> list[dict[str, Any]]:
        return Store.open(self.store).table.to_pylist()

    def codes(self) -> dict[str, set[str]]:
        """Codes in the quarantine, by the name of the file for those that are files."""
        from client.ingest.keys import keyed

        names = {keyed(SECRET, "item", item_name(path)): path.name for path in self.dicom.rglob("*")}
        found: dict[str, set[str]] = {}
        for line in (self.store / "quarantine.jsonl").read_text().splitlines():
            note = json.loads(line)
            found.setdefault(names.get(note["item"], "?"), set()).add(note["code"])
        return found


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def digests(store: Path) -> dict[str, str]:
    """SHA-256 of every file of a store but what is derived or a lock."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.name != ".lock" and "derived" not in path.parts
    }


@pytest.fixture
def contents() -> Callable[[Path], dict[str, str]]:
    return digests
