"""The Open-i reports beside the checkout, their human coding as CheXpert classes, and scores over it.

The MeSH coding is of the report: what the coder found worth a term. It knows present and absent only, so an
uncertain label counts as not present. Enlarged Cardiomediastinum has no term of its own and is left out.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from models.language.sections import Sections
from models.studies.schema import CHEXPERT, Label

SCORED = tuple(name for name in CHEXPERT if name != "Enlarged Cardiomediastinum")
_HEADS = {
    "No Finding": {"normal"},
    "Lung Lesion": {"Nodule", "Mass"},
    "Lung Opacity": {"Opacity", "Airspace Disease", "Infiltrate"},
    "Edema": {"Pulmonary Edema", "Pulmonary Congestion", "Heart Failure"},
    "Consolidation": {"Consolidation"},
    "Pneumonia": {"Pneumonia"},
    "Atelectasis": {"Pulmonary Atelectasis"},
    "Pneumothorax": {"Pneumothorax", "Hydropneumothorax"},
    "Pleural Effusion": {"Pleural Effusion", "Hydropneumothorax", "Hemothorax"},
    "Fracture": {"Fractures, Bone"},
    "Support Devices": {
        "Implanted Medical Device",
        "Medical Device",
        "Catheters, Indwelling",
        "Tube, Inserted",
        "Stents",
    },
}


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def reports(folder: Path) -> list[dict[str, str]]:
    return read_csv(folder / "reports" / "openi_reports.csv")


def sections(row: Mapping[str, str]) -> Sections:
    return Sections(findings=row["findings"] or None, impression=row["impression"] or None)


def coding(row: Mapping[str, str]) -> dict[str, bool] | None:
    """Class: whether a coder found it present; ``None`` for reports that nobody coded."""
    terms = [[part.strip() for part in term.split("/")] for term in row["mesh_major"].split("|")]
    heads = {term[0] for term in terms}
    if "No Indexing" in heads:
        return None
    found = {name: bool(heads & wanted) for name, wanted in _HEADS.items()}
    found["Cardiomegaly"] = any(t[0] == "Cardiomegaly" or (t[0] == "Cardiac Shadow" and "enlarged" in t) for t in terms)
    found["Pleural Other"] = any(t[0] in ("Thickening", "Cicatrix", "Calcinosis") and "pleura" in t for t in terms)
    return found


def counts(rows: Sequence[Mapping[str, str]], labeller: Callable[[Sections], Mapping[str, Label]]) -> np.ndarray:
    """(reports, classes, 3): true positive, false positive, false negative of every coded report."""
    table = []
    for row in rows:
        gold = coding(row)
        if gold is None:
            continue
        labels = labeller(sections(row))
        said = [labels[name] is Label.PRESENT for name in SCORED]
        true = [gold[name] for name in SCORED]
        table.append([(a and b, a and not b, b and not a) for a, b in zip(said, true)])
    return np.array(table, dtype=np.int64)


def f1(totals: np.ndarray) -> np.ndarray:
    """F1 from (..., 3) counts; 0 where there is nothing to count."""
    tp, fp, fn = np.moveaxis(totals, -1, 0)
    return 2 * tp / np.maximum(2 * tp + fp + fn, 1)


def scores(table: np.ndarray) -> tuple[float, float]:
    """(micro F1, macro F1) of a table of counts."""
    totals = table.sum(0)
    return float(f1(totals.sum(0))), float(f1(totals).mean())


def intervals(table: np.ndarray, draws: int = 1000, seed: int = 0) -> tuple[tuple[float, float], tuple[float, float]]:
    """95 % bootstrap intervals of micro and macro F1, by report."""
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(draws):
        weights = np.bincount(rng.integers(len(table), size=len(table)), minlength=len(table))
        totals = np.tensordot(weights, table, axes=1)
        drawn.append((f1(totals.sum(0)), f1(totals).mean()))
    low, high = np.percentile(np.array(drawn), [2.5, 97.5], axis=0)
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))
