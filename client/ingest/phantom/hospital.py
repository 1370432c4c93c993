"""A phantom hospital on disk: DICOM files and reports as a PACS would export them, and the truth beside them.

out/dicom/SITE00000/STUDY000/0001.dcm ...
out/reports.csv, or out/reports/*.txt
out/truth.jsonl                       one line per file, report and all (never give it to ingestion)
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from client.ingest.phantom.dicom import Stored, accession, make_uid, write_film
from client.ingest.phantom.patients import PhantomStudy, exposures
from client.ingest.phantom.people import Hospital, Person, invent_hospital, invent_person
from client.ingest.phantom.reports import PhantomReport, write_report
from client.ingest.phantom.style import Style
from client.ingest.pool import Pool
from models.config import build, to_plain
from models.studies.schema import Label

Progress = Callable[[int, int], None]

_SECONDS = 300.0  # for one patient, on a slow and busy machine
_MEMORY = 4 << 30


@dataclass(frozen=True)
class Written:
    """How much was written. ``files`` counts repeated exports too."""

    patients: int
    studies: int
    files: int
    reports: int
    strays: int


def write_hospital(
    out: Path,
    style: Style,
    patients: int,
    seed: int,
    size: int = 640,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Written:
    """Write ``patients`` patients of a site below ``out``: DICOM, reports and truth.

    The same arguments give the same bytes, whatever the number of workers.

    Args:
        size: short side of the films in pixels.
        workers: processes; default: one a core.
        progress: called with (patients done, patients in all).

    Raises:
        ValueError: no patient, a size below 64, or ``out`` holds a hospital already.
        RuntimeError: a worker died or hung.
    """
    if patients < 1 or size < 64:
        raise ValueError(f"patients {patients} and size {size}: at least one patient and 64 pixels")
    if (out / "truth.jsonl").exists() or (out / "dicom").exists():
        raise ValueError(f"{out}: holds a phantom hospital already; give an empty folder")
    (out / "dicom").mkdir(parents=True)
    common = {"style": to_plain(style), "seed": seed, "size": size, "out": str(out)}
    tasks = [{**common, "number": number} for number in range(patients)]
    count = max(1, min(workers or os.cpu_count() or 1, patients))
    lines: list[dict[str, Any]] = []
    with Pool("client.ingest.phantom.hospital:serve", count, _SECONDS, _MEMORY) as pool:
        for done, (answer, _) in enumerate(pool.map(tasks), start=1):
            if "code" in answer:
                shutil.rmtree(out / "dicom")
                raise RuntimeError(f"patient {done - 1} of {style.name!r} was not written ({answer['code']})")
            lines += answer["lines"]
            if progress:
                progress(done, patients)
    reports = [line for line in lines if line["report"] and line["image"] == 0 and line["repeats"] is None]
    strays = _strays(style, seed, len(reports))
    _file_reports(out, style, [_entry(line) for line in reports] + strays)
    text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
    (out / "truth.jsonl").write_text(text, encoding="utf-8")
    studies = len({line["study_uid"] for line in lines})
    return Written(patients, studies, len(lines), len(reports), len(strays))


def serve(task: dict[str, Any]) -> tuple[dict[str, Any], None]:
    """Write one patient in a worker. ``task``: style (plain values), seed, size, out, number."""
    cv2.setNumThreads(1)
    style, number, seed = build(Style, task["style"]), task["number"], task["seed"]
    root = (style.name, seed, number)
    hospital = _hospital(style, seed)
    rng = np.random.default_rng(_seed("filing", *root))
    folder = Path(task["out"]) / "dicom" / f"{style.name.upper()}{number:05d}"
    lines: list[dict[str, Any]] = []
    person: Person | None = None
    report: PhantomReport | None = None
    before: datetime.date | None = None
    for film, value in exposures(style, number, seed, task["size"]):
        person = person or invent_person(number, film.age, rng)
        path = folder / f"STUDY{film.study:03d}" / f"{film.image + 1:04d}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = write_film(path, film, value, style.archive, person, hospital, root, rng)
        if film.image == 0:
            report = None
            if rng.random() >= style.dictation.missing:
                report = write_report(
                    film, before, stored.date, stored.accession, person, hospital, style.dictation, rng
                )
            before = stored.date
        line = _truth(path.relative_to(task["out"]), film, stored, person, hospital, report)
        lines.append(line)
        if rng.random() < style.archive.repeated:
            copy = path.with_name(f"{film.image + 1:04d}_copy.dcm")
            shutil.copyfile(path, copy)
            lines.append({**line, "file": str(copy.relative_to(task["out"])), "repeats": line["file"]})
    return {"lines": lines}, None


def _hospital(style: Style, seed: int) -> Hospital:
    return invent_hospital(style.name, np.random.default_rng(_seed("hospital", style.name, seed)))


def _seed(*parts: object) -> int:
    return int(make_uid(*parts).removeprefix("2.25.")) % 2**63


def _truth(
    file: Path,
    film: PhantomStudy,
    stored: Stored,
    person: Person,
    hospital: Hospital,
    report: PhantomReport | None,
) -> dict[str, Any]:
    """All that is true about one file, ready for JSON."""
    words = {code.value: code.name.lower() for code in Label}
    plain = {k: v for k, v in asdict(film).items() if k != "pixels"}
    plain["lesions"] = [{k: v for k, v in lesion.items() if k != "seed"} for lesion in plain["lesions"]]
    plain["labels"] = {f: words[code] for f, code in film.labels.items()}
    known = None
    if report:
        known = asdict(report)
        known["mentions"] = {f: words[code] for f, code in report.mentions.items()}
    who = [person.family, person.given, person.number, person.other_number, f"{person.born:%Y%m%d}"]
    who += [person.street, person.town, person.phone, stored.accession, f"{stored.date:%Y%m%d}"]
    who += [hospital.name, hospital.address, hospital.station]
    return {
        **plain,
        **asdict(stored),
        "date": f"{stored.date:%Y%m%d}",
        "file": str(file),
        "repeats": None,
        "patient_id": person.number,
        "identifiers": who,
        "report": known,
    }


def _entry(line: dict[str, Any]) -> dict[str, str]:
    date = line["date"]
    return {
        "accession": line["accession"],
        "study_uid": line["study_uid"],
        "date": f"{date[:4]}-{date[4:6]}-{date[6:]}",
        "text": line["report"]["text"],
    }


def _strays(style: Style, seed: int, reports: int) -> list[dict[str, str]]:
    """Reports of studies that are not in the export."""
    rng = np.random.default_rng(_seed("strays", style.name, seed))
    hospital, out = _hospital(style, seed), []
    for k in range(int(rng.binomial(reports, style.dictation.strays))):
        root = (style.name, seed, "stray", k)
        date = datetime.date(2015, 6, 1) + datetime.timedelta(days=int(rng.integers(0, 2000)))
        out.append(
            {
                "accession": accession(hospital, date, root, 0),
                "study_uid": make_uid(*root),
                "date": f"{date:%Y-%m-%d}",
                "text": "IMPRESSION: Normal chest.",
            }
        )
    return out


def _file_reports(out: Path, style: Style, entries: list[dict[str, str]]) -> None:
    """As one table with the site's key, or as one text file per study named by it."""
    how = style.dictation
    if how.kept_as == "folder":
        (out / "reports").mkdir()
        for entry in entries:
            (out / "reports" / f"{entry[how.key]}.txt").write_bytes(entry["text"].encode(how.encoding))
        return
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, (how.key, "date", "text"), delimiter=how.delimiter, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(entries)
    (out / "reports.csv").write_bytes(table.getvalue().encode(how.encoding))
