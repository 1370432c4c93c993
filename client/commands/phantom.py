"""``fedcxr-site phantom``: an invented hospital, its DICOM files and reports as a PACS would export them."""

from __future__ import annotations

import shlex
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from client.commands.common import AsJson, console, errors, failed, print_json, unusable
from models.config import ConfigError

_SITE = """\
# An invented hospital; configs/sites/example.yaml holds every key.
name: {name}
store: store
secret: site.secret
state: state
socket: run/trainer.sock
"""


def phantom_command(
    out: Annotated[Path, typer.Option("--out", help="Folder to write to: new, or without a hospital.")],
    patients: Annotated[int, typer.Option("--patients", min=1, help="Patients; most have several studies.")] = 20,
    site_style: Annotated[
        str, typer.Option("--site-style", help="north: a clinic, south: intensive care, east: an emergency department.")
    ] = "north",
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed writes the same bytes.")] = 0,
    size: Annotated[int, typer.Option("--size", min=64, max=4096, help="Short side of the films in pixels.")] = 640,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes; 0: one a core.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Invent a hospital: DICOM files and reports to try everything on, and the truth about them."""
    from client.ingest.phantom.hospital import write_hospital
    from client.ingest.phantom.style import style

    begun = time.monotonic()
    try:
        look = style(site_style)
        with Progress(console=errors, disable=as_json) as bar:
            task = bar.add_task("inventing patients", total=patients)
            written = write_hospital(
                out, look, patients, seed, size, workers or None, lambda done, _: bar.update(task, completed=done)
            )
        site = out / "site.yaml"
        if not site.exists():
            site.write_text(_SITE.format(name=look.name), encoding="utf-8")
    except (ConfigError, ValueError) as error:
        unusable(str(error), as_json)
    except OSError as error:
        unusable(f"{out}: cannot be written to ({error.strerror}); give a folder with room and the right", as_json)
    except RuntimeError as error:
        failed(str(error), as_json)
    folder = look.dictation.kept_as == "folder"
    places = {
        "dicom": str(out / "dicom"),
        "reports": str(out / ("reports" if folder else "reports.csv")),
        "truth": str(out / "truth.jsonl"),
        "site": str(site),
    }
    if as_json:
        counts = asdict(written)
        counts["report_count"] = counts.pop("reports")
        print_json({**places, **counts, "seconds": round(time.monotonic() - begun, 3)})
        return
    console.print(
        f"{written.patients} patients, {written.studies} studies: {written.files} DICOM files, {written.reports} reports, "
        f"and {written.strays} of studies that are not there; {time.monotonic() - begun:.1f} s",
        highlight=False,
        soft_wrap=True,
    )
    widest = max(map(len, places.values()))
    notes = {
        "truth": "what is true of each file; never give it to the ingest",
        "site": "a site with a store of its own",
    }
    for name, place in places.items():
        line = f"  {name:<8} {place:<{widest}}   {notes.get(name, '')}"
        console.print(line.rstrip(), highlight=False, soft_wrap=True, markup=False)
    command = ["fedcxr-site", "ingest", "--dicom", places["dicom"], "--reports", places["reports"]]
    command += ["--site", places["site"]]
    console.print("next:", highlight=False)
    console.print(f"  {shlex.join(command)}", highlight=False, soft_wrap=True, markup=False)
