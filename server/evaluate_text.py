"""``fedcxr-server evaluate-text``: a text tower on the reports of a store, by the shared protocol.

Report retrieval, error discrimination (MC4), clinical similarity of the nearest report, robustness curves; over all
reports and for each site (source of the store).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from models.config import ConfigError, build
from models.evaluation.clinical import MissingScorer, scorer
from models.evaluation.nearest import nearest_results
from models.evaluation.questions import ReportQuestions
from models.evaluation.results import MACRO, Result
from models.evaluation.spoilt_reports import NOISES, curve
from models.evaluation.textual import BEATS, HEADLINES, Instructions, answers, no_instruction, text_results
from models.studies.store import Store, StoreError
from models.studies.views import ViewError
from models.text.config import TextConfig
from models.text.encoder import TextEncoder
from server.checkpoints import NoCheckpoint, open_checkpoint
from server.export import NotExported, text_tower

SPLITS = ("all", "validation", "test")


class NotEvaluated(ValueError):
    """What was asked cannot be done. The text says why and what to do."""


def open_tower(checkpoint: Path | None, model: str, max_tokens: int) -> tuple[TextEncoder, Instructions, Any]:
    """A tower, the instructions that its last phase trained with, and the plan that it came from, if any.

    Raises:
        NotEvaluated: not exactly one of the two, or one that cannot be opened.
    """
    if (checkpoint is None) == (not model):
        raise NotEvaluated("give exactly one of --checkpoint (a run, or a checkpoint) and --model (a folder)")
    try:
        if checkpoint is None:
            return build(TextConfig, {"source": model, "max_tokens": max_tokens}).build().eval(), no_instruction, None
        opened = open_checkpoint(checkpoint)
        objective = opened.plan.phases[-1].objective.build()
        return text_tower(opened), getattr(objective, "instructions", no_instruction), opened.plan
    except (ConfigError, NoCheckpoint, NotExported) as error:
        raise NotEvaluated(str(error)) from None


def held_out(store: Store, plan: Any, split: str) -> np.ndarray:
    """Rows of ``split``, cut as the plan cut them (by default 70, 15 and 15 % of patients).

    Raises:
        NotEvaluated: no such split.
    """
    if split not in SPLITS:
        raise NotEvaluated(f"--split {split!r}: one of {', '.join(SPLITS)}")
    if split == "all":
        return np.arange(len(store))
    given = plan.simulation.fractions if plan is not None and plan.simulation else None
    fractions = given or {"train": 0.7, "validation": 0.15, "test": 0.15}
    if not fractions.get(split):
        raise NotEvaluated(f"--split {split}: the run's plan has no patient in it; its fractions are {dict(fractions)}")
    return np.flatnonzero(store.split(fractions) == split)


def evaluate_text(
    tower: TextEncoder,
    data: Path,
    *,
    split: str = "all",
    plan: Any = None,
    instructions: Instructions = no_instruction,
    clinical: Sequence[str] = (),
    download: bool = False,
    replicates: int = 1000,
    precision: str = "float32",
) -> dict[str, Any]:
    """All text metrics of ``tower`` on the store at ``data``, ready for JSON.

    Returns:
        ``reports``, ``questions``, ``results`` (rows by metric and finding), ``sites`` (the same rows on each site's
        questions, all searching one bank), ``curves`` (noise, level, R@1) and how it was encoded.

    Raises:
        NotEvaluated: no such store, no question in it, or a clinical scorer that is missing.
    """
    try:
        scorers = {name: scorer(name, download) for name in clinical}
        store = Store.open(data)
        rows = held_out(store, plan, split)
        view = ReportQuestions(store, rows)
    except (MissingScorer, StoreError, ViewError) as error:
        raise NotEvaluated(str(error)) from None
    except ValueError as error:
        raise error if isinstance(error, NotEvaluated) else NotEvaluated(str(error)) from None

    def encode(texts: Sequence[str], instruction: str | None = None) -> np.ndarray:
        return tower.encode(texts, instruction, precision=precision).numpy()

    found = answers(encode, view, instructions)
    results = text_results(found, view, replicates=replicates)
    vectors = encode(view.texts)
    results += nearest_results(vectors, view.texts, view.item_patients, scorers, replicates)
    points = [p for noise in NOISES for p in curve(encode, view.texts, view.item_patients, noise, None, replicates)]
    sources = np.asarray(store.strings("source"), dtype=object)
    names = sorted({str(name) for name in sources[view.rows]})
    return {
        "reports": len(view.texts),
        "questions": len(view),
        "pooling": tower.cfg.pooling,
        "max_tokens": tower.cfg.max_tokens,
        "precision": precision,
        "split": split,
        "results": [row.line() for row in results],
        "sites": {
            name: [
                row.line()
                for row in text_results(found, view, np.flatnonzero(sources[view.rows] == name), replicates)
                if row.metric in HEADLINES
            ]
            for name in (names if len(names) > 1 else [])
        },
        "curves": [{"noise": p.noise, "level": p.level, **_short(p.result)} for p in points],
    }


def _short(row: Result) -> dict[str, Any]:
    return {key: value for key, value in asdict(row).items() if key in ("value", "low", "high", "n", "reason")}


def print_text(found: dict[str, Any], console: Console) -> None:
    """The tables for a terminal."""
    console.print(
        f"{found['reports']} reports, {found['questions']} questions; {found['pooling']} pooling, "
        f"{found['max_tokens']} tokens, {found['precision']}"
    )
    main = Table("metric", "of", "value", "95 % interval", "n", box=None, pad_edge=False)
    for row in found["results"]:
        if not row["metric"].endswith("_diagonal") or row["finding"] != MACRO:
            what = "all" if row["finding"] == MACRO else str(row["finding"])
            main.add_row(row["metric"], what, *_cells(row))
    console.print(main)
    if found["sites"]:
        sites = Table("site", "metric", "of", "value", "95 % interval", "n", box=None, pad_edge=False)
        for site, rows in found["sites"].items():
            for row in rows:
                sites.add_row(site, row["metric"], "all" if row["finding"] == MACRO else row["finding"], *_cells(row))
        console.print(sites)
    curves = Table("noise", "level", "R@1", "95 % interval", "n", box=None, pad_edge=False)
    for point in found["curves"]:
        curves.add_row(point["noise"], f"{point['level']:g}", *_cells(point))
    console.print(curves)
    if any(row["metric"] == BEATS for row in found["results"]):
        console.print(
            f"{BEATS}: share of wrong texts of that error farther than the right one; chance 0.5, of mc4 0.25."
        )


def _cells(row: dict[str, Any]) -> tuple[str, str, str]:
    value = "-" if row["value"] is None else f"{row['value']:.3f}"
    band = f"{row['low']:.3f} to {row['high']:.3f}" if row["low"] is not None else (row["reason"] or "")
    return value, band, "" if row["n"] is None else str(row["n"])
