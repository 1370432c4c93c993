"""What is in a study store: counts for a person to check against what they know, and sheets of images to look at.

Nothing here holds an identifier: images are named by their row in the store.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from PIL import Image, ImageDraw, ImageFont

from client.ingest.quality import QualityConfig
from models.studies.schema import AGE_BANDS, SEXES, VIEWS, Label
from models.studies.store import Store

YEAR = 365
"""Days of one year offset: year 0 holds days 0 to 364 after a patient's first study."""

TILE = 256
_CAPTION = 42
_GAP, _PAD = 10, 6
_VIEW_WORDS = {"LATERAL": "lateral", "UNKNOWN": "view unknown"}
_BACKGROUND, _PANEL, _PLAIN, _STRUCK = (12, 14, 17), (30, 33, 39), (208, 212, 218), (255, 190, 90)


@dataclass(frozen=True)
class Counts:
    """All counts are of images unless their name says otherwise. ``labels`` by finding: present, absent, uncertain.

    ``years``: by years since the patient's first study, "unknown" where the day is. ``text``: by the report sections
    that an image has. ``pairs``: images with a prior.
    """

    images: int
    studies: int
    patients: int
    short_side: int
    sources: dict[str, int]
    views: dict[str, int]
    sexes: dict[str, int]
    ages: dict[str, int]
    years: dict[str, int]
    text: dict[str, int]
    pairs: int
    labels: dict[str, dict[str, int]]
    flags: dict[str, int]


def count(store: Store) -> Counts:
    """Count everything once."""
    return Counts(
        images=len(store),
        studies=len(set(zip(store.strings("patient"), store.strings("study"), strict=True))),
        patients=len(store.patients.keys),
        short_side=int(store.about["short_side"]),
        sources=dict(sorted(Counter(store.strings("source")).items())),
        views=_ordered(store.strings("view"), VIEWS),
        sexes=_ordered(store.strings("sex"), SEXES),
        ages=_ordered(store.strings("age_band"), AGE_BANDS),
        years=_years(store),
        text=_text(store),
        pairs=len(store) - store.table["prior"].null_count,
        labels={finding: _label(column) for finding, column in zip(store.findings, store.labels(store.findings).T)},
        flags=dict(Counter(name for _, row in flagged(store) for name, _ in row).most_common()),
    )


def quarantined(store: Path) -> dict[str, int]:
    """Items of ``quarantine.jsonl`` by reason code, the most frequent first; a torn last line is passed over."""
    codes: Counter[str] = Counter()
    try:
        with open(store / "quarantine.jsonl", "rb") as lines:
            for line in lines:
                try:
                    codes[str(json.loads(line)["code"])] += 1
                except (ValueError, KeyError, TypeError):
                    continue
    except FileNotFoundError:
        return {}
    return dict(codes.most_common())


def flagged(store: Store) -> list[tuple[int, list[tuple[str, float | None]]]]:
    """(row, its flags as (name, score)) of every image that has a flag, in the store's order."""
    found = []
    for row, text in enumerate(store.strings("flags")):
        if text:
            found.append((row, [_flag(part) for part in str(text).split(",")]))
    return found


def worst_first(rows: Iterable[tuple[int, list[tuple[str, float | None]]]]) -> list[tuple[int, list[str]]]:
    """(row, captions of its flags) with the most doubtful image first; equal ones in the store's order."""
    ranked = sorted(rows, key=lambda item: (-max(doubt(*flag) for flag in item[1]), item[0]))
    return [(row, [_caption(name, score) for name, score in flags]) for row, flags in ranked]


def _caption(name: str, score: float | None) -> str:
    words = name.replace("-", " ").replace("_", " ")
    return words if score is None else f"{words} {score:g}" if score >= 1 else f"{words} {score:.2f}"


def doubt(name: str, score: float | None) -> float:
    """How far a flag's score lies beyond the usual threshold, so that different checks can be put in one order.

    The scores of the chest checks are differences of correlations, and compare. A line of text counts a tenth a
    letter. Flags without a score (what a header contradicts) come last.
    """
    usual = QualityConfig()
    if score is None:
        return 0.0
    name = name.replace("-", "_")
    if name == "not_chest":
        return usual.chest - score
    if name == "text":
        return 0.1 * (score - usual.text)
    return score - float(getattr(usual, name, 0.0))


def draw_random(store: Store, path: Path, seed: int = 0, tiles: int = 40) -> int:
    """Write a contact sheet of ``tiles`` images drawn by ``seed`` to ``path``; returns how many are on it."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(store))[:tiles])
    flags = {row: captions for row, captions in worst_first(flagged(store))}
    _sheet(store, path, [(int(row), flags.get(int(row), [])) for row in rows])
    return len(rows)


def draw_flagged(store: Store, path: Path, tiles: int = 40) -> int:
    """Write a contact sheet of the most doubtful flagged images; removes an old one where none is flagged."""
    chosen = worst_first(flagged(store))[:tiles]
    if chosen:
        _sheet(store, path, chosen)
    else:
        path.unlink(missing_ok=True)
    return len(chosen)


def _ordered(values: Sequence[str | None], order: Sequence[str]) -> dict[str, int]:
    """Counts in the schema's order, without what does not occur."""
    counts = Counter(value or "UNKNOWN" for value in values)
    return {name: counts[name] for name in order if counts[name]}


def _years(store: Store) -> dict[str, int]:
    days = store.table["day"].drop_null().to_numpy()
    counts = Counter((days // YEAR).tolist())
    years = {str(year): counts[year] for year in sorted(counts)}
    unknown = len(store) - len(days)
    return years | ({"unknown": unknown} if unknown else {})


def _text(store: Store) -> dict[str, int]:
    has = [
        np.asarray(pc.fill_null(pc.greater(pc.utf8_length(store.table[name]), 0), False))
        for name in ("findings", "impression")
    ]
    findings, impression = has
    return {
        "both": int((findings & impression).sum()),
        "findings only": int((findings & ~impression).sum()),
        "impression only": int((~findings & impression).sum()),
        "none": int((~findings & ~impression).sum()),
    }


def _label(column: np.ndarray) -> dict[str, int]:
    wanted = {"present": Label.PRESENT, "absent": Label.ABSENT, "uncertain": Label.UNCERTAIN}
    return {name: int((column == int(code)).sum()) for name, code in wanted.items()}


def _flag(text: str) -> tuple[str, float | None]:
    name, _, score = text.partition(":")
    try:
        value = float(score)
    except ValueError:
        return name, None
    return name, value if math.isfinite(value) else None


def _sheet(store: Store, path: Path, tiles: Sequence[tuple[int, Sequence[str]]]) -> None:
    """Draw images in a grid, each with its row, view and flags below it, and put the PNG in place as a whole."""
    across = min(8, max(1, round((len(tiles) * 1.4) ** 0.5)))
    down = -(-len(tiles) // across)
    wide, tall = TILE + 2 * _PAD, TILE + _PAD + _CAPTION
    sheet = Image.new("RGB", (across * (wide + _GAP) + _GAP, down * (tall + _GAP) + _GAP), _BACKGROUND)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    views = store.strings("view")
    for place, (row, flags) in enumerate(tiles):
        left, top = _GAP + place % across * (wide + _GAP), _GAP + place // across * (tall + _GAP)
        pen.rounded_rectangle((left, top, left + wide - 1, top + tall - 1), 5, _PANEL)
        image = _fitted(Image.fromarray(store.pixels(row)))
        sheet.paste(image, (left + (wide - image.width) // 2, top + _PAD + (TILE - image.height) // 2))
        view = str(views[row] or "UNKNOWN")
        pen.text((left + _PAD, top + TILE + _PAD + 3), f"{row}   {_VIEW_WORDS.get(view, view)}", _PLAIN, font)
        pen.text((left + _PAD, top + TILE + _PAD + 21), _cut(", ".join(flags), pen, font), _STRUCK, font)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)  # pixels of patients
    try:
        with open(handle, "wb") as file:
            sheet.save(file, "PNG")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _fitted(image: Image.Image) -> Image.Image:
    """The image with its longer side as long as a tile's."""
    scale = TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)


def _cut(text: str, pen: Any, font: Any) -> str:
    """``text``, cut to the width of a tile."""
    if pen.textlength(text, font) <= TILE:
        return text
    while text and pen.textlength(text + " ...", font) > TILE:
        text = text[:-1]
    return text + " ..."
