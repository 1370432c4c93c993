"""``fedcxr-site inspect``: what is in a store, in numbers and in pictures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from client.commands.common import AsJson, console, print_json, unusable


def inspect_command(
    store: Annotated[Path, typer.Argument(help="The study store.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the sheets; default: beside the store, STORE-inspection.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Which random images are drawn.")] = 0,
    tiles: Annotated[int, typer.Option("--tiles", min=1, max=400, help="Most images on one sheet.")] = 40,
    as_json: AsJson = False,
) -> None:
    """Count what a store holds, and draw two sheets: random images, and the flagged ones with the worst first."""
    from client.ingest.inspection import count, draw_flagged, draw_random, quarantined
    from models.studies.store import Store, StoreError

    try:
        refused = quarantined(store)
        opened = Store.open(store)
    except OSError as error:
        unusable(f"{store}: cannot be read ({error.strerror})", as_json)
    except StoreError as error:
        _unopened(str(error), refused, as_json)
    folder = out or store.resolve().parent / f"{store.resolve().name}-inspection"
    if folder.resolve().is_relative_to(store.resolve()):
        unusable(
            "out: lies inside the store, which holds only what the ingest writes; give a folder elsewhere", as_json
        )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        shown = draw_random(opened, folder / "random.png", seed, tiles)
        doubtful = draw_flagged(opened, folder / "flagged.png", tiles)
    except OSError as error:
        unusable(f"{folder}: the sheets cannot be written ({error.strerror}); give a writable folder: --out", as_json)
    counts = count(opened)
    sheets = {"random": str(folder / "random.png"), "flagged": str(folder / "flagged.png") if doubtful else None}
    if as_json:
        print_json({**asdict(counts), "quarantined": refused, "sheets": sheets})
        return
    _show(counts)
    _show_refused(refused)
    lines = [(f"{shown} random images", sheets["random"])]
    lines += [(f"{doubtful} flagged images, worst first", sheets["flagged"])] if doubtful else []
    for what, place in lines:
        console.print(f"{what:<32} {place}", highlight=False, soft_wrap=True, markup=False)
    console.print("The sheets show patients: keep them inside the hospital.", highlight=False)


def _unopened(text: str, refused: dict[str, int], as_json: bool) -> None:
    """A store that cannot be opened still says why its files were refused."""
    if as_json:
        print_json({"error": text, "quarantined": refused})
        raise typer.Exit(2)
    _show_refused(refused)
    unusable(text, as_json)


def _show(counts: Any) -> None:
    console.print(
        f"{counts.images} images of {counts.studies} studies of {counts.patients} patients, "
        f"short side {counts.short_side} pixels; {counts.pairs} images with a prior\n",
        highlight=False,
    )
    _beside({"view": counts.views, "sex": counts.sexes, "age": counts.ages, "years on": counts.years})
    _beside({"report sections": counts.text, "source": counts.sources, "flag": counts.flags})
    if any(sum(row.values()) for row in counts.labels.values()):
        console.print(_labels(counts))
    else:
        console.print("No image has a label.", highlight=False)
    console.print()


def _beside(tables: dict[str, dict[str, int]]) -> None:
    """Small tables side by side, those without a row left out."""
    shown = [_small(title, values) for title, values in tables.items() if values]
    grid = Table.grid(padding=(0, 5))
    grid.add_row(*shown)
    console.print(grid)
    console.print()


def _small(title: str, values: dict[str, int]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title)
    table.add_column("", justify="right")
    for name, number in values.items():
        table.add_row(name, str(number))
    return table


def _labels(counts: Any) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("finding")
    for name in ("present", "absent", "uncertain", "unmentioned", "present of known"):
        table.add_column(name, justify="right")
    for finding, row in counts.labels.items():
        said = sum(row.values())
        known = row["present"] + row["absent"]
        share = f"{row['present'] / known:.0%}" if known else ""
        table.add_row(
            finding, *(str(row[k]) for k in ("present", "absent", "uncertain")), str(counts.images - said), share
        )
    return table


def _show_refused(refused: dict[str, int]) -> None:
    from client.ingest.codes import ADVICE, Reason

    if not refused:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("quarantined")
    table.add_column("items", justify="right")
    table.add_column("what it means", overflow="fold")
    for code, number in refused.items():
        known = code in Reason._value2member_map_
        table.add_row(code, str(number), ADVICE[Reason(code)] if known else "a code of another release")
    console.print(table)
    console.print()
