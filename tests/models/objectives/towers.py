"""A store of reports and a small text model, for the tests of objectives on reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from client.ingest.keys import public_secret
from client.ingest.writer import StoreWriter
from models.config import build
from models.model import CxrModel, ModelConfig, initial_model
from models.studies.store import Store

REPORTS = (
    ("The heart is enlarged. Small left pleural effusion.", "Cardiomegaly with a small left effusion."),
    ("Lungs are clear. No pleural effusion or pneumothorax.", "No acute disease."),
    ("There is a large right pneumothorax. The heart is normal in size.", "Large right pneumothorax."),
    ("Left lower lobe consolidation. No effusion.", "Left lower lobe pneumonia."),
    ("Mild pulmonary edema. Stable moderate cardiomegaly.", "Mild edema, stable cardiomegaly."),
    ("Right basilar atelectasis. No pneumothorax.", "Right basilar atelectasis."),
    ("Moderate bilateral pleural effusions. Endotracheal tube in place.", "Moderate bilateral effusions."),
    ("A 12 mm nodule is seen in the right upper lobe.", "Right upper lobe nodule, 12 mm."),
)


def report_store(
    path: Path, reports: Sequence[tuple[str | None, str | None]], images: int = 1, cache: Path | None = None
) -> Store:
    """A store of one study for each (findings, impression), each with ``images`` films."""
    secret = public_secret("tests")
    with StoreWriter(path, secret=secret, short_side=32) as writer:
        for number, (findings, impression) in enumerate(reports):
            for image in range(images):
                name = f"{number}-{image}"
                row: dict[str, Any] = {
                    "image": writer.key("image", name),
                    "patient": writer.key("patient", f"p{number}"),
                    "study": writer.key("study", f"s{number}"),
                    "digest": writer.key("digest", name),
                    "source": "tests",
                    "order": 0,
                    "findings": findings,
                    "impression": impression,
                }
                rng = np.random.default_rng([number, image])
                writer.add(row, rng.integers(0, 255, (16, 16), dtype=np.uint8))
        writer.finish()
    return Store.open(path)


def text_model(objective: Any, seed: int = 0, vision: dict | None = None, **text: Any) -> CxrModel:
    """A model with a text tower of two layers, 32 wide."""
    scratch = {"width": 32, "heads": 4, "depth": 2, "vocabulary": 1200, **text.pop("scratch", {})}
    values = {"text": {"scratch": scratch, "max_tokens": 128, "batch_tokens": 4096, **text}}
    if vision:
        values["vision"] = vision
    return initial_model(build(ModelConfig, values), [objective], seed)
