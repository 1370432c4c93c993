"""``fedcxr-site ingest``: a PACS export, and the reports that belong to it, become a study store."""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from client.commands.common import AsJson, console, errors, print_json, unusable

if TYPE_CHECKING:
    from client.ingest.intake import Progress as Tell
    from client.ingest.intake import Summary


def ingest_command(
    dicom: Annotated[Path, typer.Option("--dicom", help="Folder with the DICOM files, at any depth.")],
    site: Annotated[Path, typer.Option("--site", help="The site's YAML.")],
    reports: Annotated[
        Path | None, typer.Option("--reports", help="A CSV, or a folder with one text file per study.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option("--store", help="Study store; default: the one in the site's YAML.")
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=0, help="Reading processes; 0: one a core.")] = None,
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait while another ingest is at work.")
    ] = 0.0,
    watch: Annotated[bool, typer.Option("--watch", help="Go on as the folder grows, until stopped (Ctrl-C).")] = False,
    every: Annotated[float, typer.Option("--every", min=0.1, help="With --watch: seconds between two looks.")] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Read DICOM files and reports into a study store that holds no identifier.

    Run it again to go on after a stop or to add what is new: what was read before is not read again. Files that do not
    get in are listed by a code in the store's quarantine.jsonl, and nothing of them is kept.
    """
    from client.ingest.intake import Intake, Settings
    from client.ingest.journal import StoreWriteError
    from client.ingest.keys import SecretError, site_secret
    from client.ingest.sandbox import SandboxError
    from client.ingest.siteindex import IndexFileError
    from client.ingest.watching import watch_folder
    from client.site_config import load_site
    from models.config import ConfigError, build, to_plain

    stop = threading.Event()
    try:
        cfg = load_site(site)
        count = cfg.workers if workers is None else workers
        settings = build(
            Settings,
            {
                "source": cfg.name,
                "reading": to_plain(cfg.reading),
                "reports": to_plain(cfg.reports),
                "pairing": to_plain(cfg.pairing),
                "workers": count,
                "wait_seconds": wait,
            },
        )
        place = store or cfg.store
        index = cfg.index
        if place.resolve() != cfg.store.resolve():  # another store remembers other files
            index = index.with_name(f"{index.name}-{hashlib.sha256(str(place.resolve()).encode()).hexdigest()[:8]}")
        with Intake(dicom, place, index, settings, site_secret(cfg.secret), reports) as intake, _bar(as_json) as tell:
            if watch:
                _stop_softly(stop)
                summary = watch_folder(intake, stop, every, tell)
            else:
                summary = intake.run(tell)
    except (ConfigError, IndexFileError, SandboxError, SecretError, StoreWriteError) as error:
        unusable(str(error), as_json)
    except KeyboardInterrupt:
        unusable("stopped; what was taken in is safe: run the same command again to go on", as_json)
    if as_json:
        print_json(asdict(summary))
    else:
        _show(summary)


def _stop_softly(stop: threading.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


@contextmanager
def _bar(hidden: bool) -> Iterator[Tell]:
    """A progress bar for each thing that is done."""
    with Progress(console=errors, disable=hidden) as bar:
        tasks: dict[str, int] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield tell


def _show(summary: Summary) -> None:
    from client.ingest.codes import ADVICE, Reason

    console.print(
        f"{summary.accepted} images taken in, {summary.duplicate} there already, {summary.seconds:.1f} s; "
        f"{summary.pairs} images of the store have a prior",
        highlight=False,
    )
    if summary.changed:
        console.print(
            f"  {summary.changed} headers now say something else; the store keeps what it has", highlight=False
        )
    if summary.withdrawn:
        console.print(f"  {summary.withdrawn} images taken out: their study came with two patients", highlight=False)
    if summary.reports:
        words = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in summary.reports.items())
        console.print(f"  reports: {words}", highlight=False, soft_wrap=True)
    for code, count in sorted(summary.quarantined.items(), key=lambda pair: (-pair[1], pair[0])):
        console.print(f"  {count:6d} {code}: {ADVICE[Reason(code)]}", highlight=False, soft_wrap=True)
