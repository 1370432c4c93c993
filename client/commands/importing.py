"""``fedcxr-site import``: an image folder with a CSV becomes a study store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from client.commands.common import AsJson, console, errors, print_json, unusable
from models.config import ConfigError


def import_command(
    folder: Annotated[Path, typer.Option("--folder", help="Folder with the images and their CSV.")],
    store: Annotated[Path, typer.Option("--store", help="Study store to make or to add to.")],
    secret: Annotated[Path, typer.Option("--secret", help="The site's secret file; made on first use.")],
    layout: Annotated[str, typer.Option("--layout", help="Name of a shipped layout, or a YAML.")] = "image-folder",
    workers: Annotated[int, typer.Option("--workers", help="Decoding processes; 0: one a core.")] = 0,
    short_side: Annotated[int, typer.Option("--short-side", help="Stored short side in pixels.")] = 512,
    as_json: AsJson = False,
) -> None:
    """Read an image folder with a CSV into a study store; run again to go on or to add."""
    from client.ingest.codes import ADVICE, Reason
    from client.ingest.importer import import_folder
    from client.ingest.journal import StoreWriteError
    from client.ingest.keys import SecretError, site_secret
    from client.ingest.layouts import LayoutError, load_layout
    from client.ingest.pool import PoolError

    try:
        with Progress(console=errors, disable=as_json) as bar:
            task = bar.add_task("reading images", total=None)
            summary = import_folder(
                folder,
                load_layout(layout),
                store,
                site_secret(secret),
                workers or None,
                lambda done, total: bar.update(task, completed=done, total=total),
                short_side=short_side,
            )
    except (ConfigError, LayoutError, PoolError, SecretError, StoreWriteError) as error:
        unusable(str(error), as_json)
    if as_json:
        print_json(asdict(summary))
        return
    console.print(
        f"{summary.accepted} images added, {summary.duplicate} there already, {summary.seconds:.1f} s", highlight=False
    )
    if summary.changed:
        console.print(f"  {summary.changed} rows now say something else; the store keeps what it has", highlight=False)
    for code, count in summary.quarantined.items():
        console.print(f"  {count} quarantined: {code} ({ADVICE[Reason(code)]})", highlight=False)
