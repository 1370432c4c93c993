"""``fedcxr-site export``: de-identified DICOM files for a shared evaluation set."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from client.commands.common import AsJson, console, errors, failed, print_json, unusable
from models.config import ConfigError

if TYPE_CHECKING:
    from client.ingest.siteindex import SiteIndex
    from client.site_config import SiteConfig

NO_INDEX = (
    "this site has ingested nothing yet, so a study that came with two patients cannot be recognised: ingest first"
)


def export_command(
    dicom: Annotated[Path, typer.Option("--dicom", help="Folder with the DICOM files; links are not followed.")],
    site: Annotated[Path, typer.Option("--site", help="The site's YAML.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the de-identified files; may hold earlier ones.")],
    workers: Annotated[int, typer.Option("--workers", min=0, help="Reading processes; 0: as the site's YAML.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write de-identified DICOM: basic profile, dates moved, sex and age bands. Run again to go on or to add.

    A file leaves only if nothing in it identifies anybody as far as software can tell. Look at the pictures before
    they leave the hospital.
    """
    from client.ingest.codes import Reason
    from client.ingest.export import Exporter
    from client.ingest.journal import StoreWriteError
    from client.ingest.keys import SecretError, site_secret
    from client.ingest.pool import PoolError
    from client.ingest.ps315 import TableError, load_table
    from client.ingest.pseudonym import Pseudonyms
    from client.ingest.siteindex import IndexFileError
    from client.ingest.walk import files_below
    from client.site_config import load_site

    begun = time.monotonic()
    try:
        cfg = load_site(site)
        _check_folders(dicom, out, cfg)
        found = list(files_below(dicom))
        paths = [path for path in found if path.is_file()]  # a named pipe would hold the reader up
        if not found:
            raise ConfigError("dicom: no file below this folder; give the folder of a PACS export")
        with _index(cfg) as index:
            exporter = Exporter(out, Pseudonyms(site_secret(cfg.secret)), cfg.export, index)
            exporter.counts.update([Reason.NOT_DICOM.value] * (len(found) - len(paths)))
            warnings = [text for text in (exporter.warning, None if index else NO_INDEX) if text]
            if not as_json:
                for text in warnings:
                    errors.print(f"[yellow]warning:[/] {text}", soft_wrap=True, highlight=False)
            try:
                _run(exporter, paths, workers or cfg.workers or os.cpu_count() or 1, quiet=as_json)
            except (StoreWriteError, TableError) as error:
                failed(str(error), as_json)
    except (ConfigError, IndexFileError, PoolError, SecretError, StoreWriteError, TableError) as error:
        unusable(str(error), as_json)
    counts = dict(sorted(exporter.counts.items()))
    summary = {
        "exported": counts.pop("exported", 0),
        "duplicate": counts.pop("duplicate", 0),
        "quarantined": counts,
        "edition": load_table().edition,
        "seconds": round(time.monotonic() - begun, 3),
        "warnings": warnings,
    }
    if as_json:
        print_json(summary)
    else:
        _show(summary)


def _check_folders(dicom: Path, out: Path, cfg: SiteConfig) -> None:
    """
    Raises:
        ConfigError: what is read and what is written would mix.
    """
    if not dicom.is_dir():
        raise ConfigError("dicom: no such folder; give the folder of a PACS export")
    if out.resolve().is_relative_to(dicom.resolve()):
        raise ConfigError("out: lies inside --dicom, and would be read as well; give a folder elsewhere")
    if out.resolve().is_relative_to(cfg.store.resolve()):
        raise ConfigError("out: lies inside the store; give a folder elsewhere")
    if not out.parent.is_dir():
        raise ConfigError("out: the folder it would lie in does not exist; make it first")


@contextmanager
def _index(cfg: SiteConfig) -> Iterator[SiteIndex | None]:
    """The site's private index; ``None`` for a site that has not ingested yet."""
    from client.ingest.siteindex import SiteIndex

    if not cfg.index.exists():
        yield None
        return
    with SiteIndex(cfg.index, cfg.store) as index:
        yield index


def _run(exporter: Any, paths: list[Path], workers: int, quiet: bool) -> None:
    columns = (TextColumn("exporting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, disable=quiet) as bar:
        task = bar.add_task("", total=len(paths))
        for _ in exporter.run(paths, max(1, min(workers, len(paths)))):
            bar.advance(task)


def _show(summary: dict[str, Any]) -> None:
    from client.ingest.codes import ADVICE, Reason

    refused = sum(summary["quarantined"].values())
    console.print(
        f"{summary['exported']} exported, {summary['duplicate']} there already, {refused} refused; "
        f"PS3.15 {summary['edition']}; {summary['seconds']:.1f} s",
        highlight=False,
        soft_wrap=True,
    )
    for code, count in summary["quarantined"].items():
        console.print(f"  {count} {code}: {ADVICE[Reason(code)]}", highlight=False, soft_wrap=True)
    if summary["exported"] or summary["duplicate"]:
        console.print("Look at every picture before it leaves: only people can tell what is written on it.")
