"""``fedcxr-server attention``: where a model looks on one film, as a picture and as numbers."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from models.attention import Comparison, NoAttention, comparisons, last_attention
from models.checkpoint import load
from models.config import ConfigError
from models.released import Normalise, ReleasedError, read_released
from models.studies.augment import to_float
from models.studies.resize import fit_into, resample
from models.vision.vit import ViT
from server.checkpoints import Checkpoint, NoCheckpoint, open_checkpoint

MAX_BYTES, MAX_PIXELS, MIN_SIDE = 100_000_000, 100_000_000, 16
WINDOW = (0.1, 99.9)


class Unusable(ValueError):
    """A checkpoint or a film that cannot be shown. The text says why and what to do."""


@dataclass(frozen=True)
class Viewer:
    """A model ready to look. title: what it is; size, fit: how it takes a film; scores: probability by finding, empty
    for a tower without a head."""

    tower: nn.Module
    title: str
    size: int
    fit: str
    scores: Any = None


@dataclass(frozen=True)
class Look:
    """film: uint8 [S,S] as the model saw it; heads [H,g,g] of a ViT, or None; compared: of every ACM, from first to last."""

    title: str
    film: np.ndarray
    scores: dict[str, float]
    heads: np.ndarray | None
    pooled: bool
    compared: list[Comparison]

    def film_tile(self, side: int) -> np.ndarray:
        """The film as uint8 [side,side]."""
        return resample(self.film, side, side)


def read_film(path: Path) -> np.ndarray:
    """uint8 [H,W] from a PNG or JPEG, upright; 16-bit films are windowed, colour becomes grey.

    The header is checked before anything is decoded.

    Raises:
        Unusable: no such file, too large, too small, or not a whole PNG or JPEG.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Unusable(f"{path}: cannot be read ({error.strerror or type(error).__name__})") from None
    if len(raw) > MAX_BYTES:
        raise Unusable(f"{path}: more than {MAX_BYTES // 1_000_000} MB; shrink the film first")
    try:
        image = Image.open(io.BytesIO(raw), formats=("PNG", "JPEG"))
        width, height = image.size
        if width * height > MAX_PIXELS or min(width, height) < MIN_SIDE:
            raise Unusable(
                f"{path}: {width} x {height} pixels; at least {MIN_SIDE} a side, at most {MAX_PIXELS:,} in all"
            )
        image = ImageOps.exif_transpose(image)
        wide = image.mode.startswith("I")
        pixels = np.asarray(image if wide else image.convert("L"))
    except Unusable:
        raise
    except Exception:  # Pillow raises many kinds for a broken file
        raise Unusable(f"{path}: not a whole PNG or JPEG; export a DICOM film as PNG first") from None
    if wide:
        low, high = np.percentile(pixels, WINDOW)
        pixels = ((pixels - low) / max(high - low, 1) * 255).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def open_viewer(path: Path, part: str = "", normalise: Normalise = "none", size: int = 0) -> Viewer:
    """The model of a run (its folder, or one checkpoint in it), or weights that others released.

    Raises:
        Unusable: neither, or one that does not fit its own configuration.
    """
    if normalise not in ("none", "imagenet"):
        raise Unusable(f"normalise {normalise!r}: none or imagenet")
    path = path.expanduser()
    folder = path.parent if path.name == "model.safetensors" else path
    try:
        if path.is_dir() or any((run / "run.yaml").is_file() for run in (folder, folder.parent.parent)):
            return _of_run(open_checkpoint(path), size)
        tower = read_released(path, part=part, normalise=normalise).build().eval()
    except (ConfigError, NoCheckpoint, ReleasedError) as error:
        raise Unusable(str(error)) from None
    return Viewer(tower, path.name, size or tower.cfg.image_size, "pad")


def _of_run(checkpoint: Checkpoint, size: int) -> Viewer:
    plan, file = checkpoint.plan, checkpoint.model
    try:
        tensors = load(file)
        model = plan.new_model()
        kept = [c for c in model.components() if any(name.startswith(f"{c}/") for name in tensors)]
        if "vision" not in kept:
            raise Unusable(f"{file}: holds no vision tower")
        model.load(kept, {n: t for n, t in tensors.items() if n.split("/")[0] in kept})
    except ConfigError as error:
        raise Unusable(f"{checkpoint.run}: its run.yaml does not describe the model ({error})") from None
    except ValueError as error:
        raise Unusable(str(error) if str(file) in str(error) else f"{file}: {error}") from None
    model.eval()
    phase = plan.phases[-1]
    objective = phase.objective.build()
    findings = getattr(phase.objective, "findings", ())

    def scores(film_11SS: Tensor) -> dict[str, float]:
        with torch.no_grad():
            values = objective.logits(model, film_11SS).sigmoid()[0]
        return dict(zip(findings, map(float, values)))

    seen = size or getattr(phase.objective, "size", plan.model.vision.image_size)
    known = f"head.{phase.objective.name}" in kept and hasattr(objective, "logits")
    title = f"Run {plan.name}, round {checkpoint.state['round']}"
    return Viewer(model.vision, title, seen, getattr(phase.objective, "fit", "pad"), scores if known else None)


@torch.no_grad()
def look(viewer: Viewer, pixels: np.ndarray) -> Look:
    """What ``viewer`` sees of a film uint8 [H,W].

    Raises:
        Unusable: a tower that attends to nothing, or a size it cannot take.
    """
    film = np.empty((viewer.size, viewer.size), np.uint8)
    fit_into(pixels, film, viewer.fit)
    batch = torch.from_numpy(film)[None, None]
    images = to_float(batch, viewer.tower.cfg.channels)
    heads, compared = None, []
    try:
        if isinstance(viewer.tower, ViT):
            heads = last_attention(viewer.tower, images)[0].numpy()
        else:
            compared = comparisons(viewer.tower, images)
    except NoAttention:
        raise Unusable(
            f"{viewer.title}: a {viewer.tower.cfg.name} without acm attends to nothing that could be shown"
        ) from None
    except ValueError as error:
        raise Unusable(str(error)) from None
    pooled = heads is not None and viewer.tower.cfg.pool == "mean"
    return Look(viewer.title, film, viewer.scores(batch) if viewer.scores else {}, heads, pooled, compared)


def where(map_HW: np.ndarray) -> dict[str, Any]:
    """Where a map is strongest, in words and as shares of the side, and how concentrated it is.

    half_on: the smallest share of the film that gets half of all attention; 0.5 if it is even.
    """
    height, width = map_HW.shape
    row, column = np.unravel_index(int(map_HW.argmax()), map_HW.shape)
    y, x = (row + 0.5) / height, (column + 0.5) / width
    # Left and right of the picture, not of the patient: a file need not say which way round it was put up.
    words = f"{('upper', 'middle', 'lower')[int(3 * y)]} {('left', 'centre', 'right')[int(3 * x)]}"
    return {
        "where": words,
        "row": round(float(y), 4),
        "column": round(float(x), 4),
        "peak": round(float(map_HW.max()), 3),
        "half_on": round(half_level(map_HW)[1], 4),
    }


def half_level(map_HW: np.ndarray) -> tuple[float, float]:
    """The level above which half of a map's sum lies, and the share of its area that is above it."""
    values = np.sort(map_HW.ravel())[::-1].astype(np.float64)
    sums = values.cumsum()
    last = int(np.searchsorted(sums, 0.5 * sums[-1]))
    before = sums[last - 1] if last else 0.0
    part = (0.5 * sums[-1] - before) / values[last] if values[last] > 0 else 0.0
    return float(values[last]), (last + part) / len(values)


def summary(seen: Look) -> dict[str, Any]:
    """The numbers of the panel, for JSON."""
    heads = [] if seen.heads is None else [{"head": i + 1, **where(head)} for i, head in enumerate(seen.heads)]
    compared = [
        {
            "block": c.place,
            "grid": list(c.focus.shape),
            "correlation": c.correlation,
            "focus": where(c.focus.numpy()),
            "context": where(c.context.numpy()),
            "difference": round(float((c.focus - c.context).abs().mean()) / 2, 4),
        }
        for c in seen.compared
    ]
    grid = None if seen.heads is None else list(seen.heads.shape[1:])
    return {
        "model": seen.title,
        "size": len(seen.film),
        "findings": seen.scores,
        "grid": grid,
        "heads": heads,
        "acm": compared,
    }
