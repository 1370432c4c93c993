"""The phantom radiologist's words: what to call each finding, and what to say of its course.

Noun phrases stand in lower case and without an article, so that they fit any sentence around them.
"""

from __future__ import annotations

import numpy as np

from client.ingest.phantom.findings import Lesion

_SIDES = {-1: "right", 1: "left", 0: "bilateral"}
_LOBES = {
    (-1, "upper"): ("right upper lobe", "right upper zone"),
    (-1, "middle"): ("right middle lobe", "right mid zone"),
    (-1, "lower"): ("right lower lobe", "right base"),
    (1, "upper"): ("left upper lobe", "left upper zone"),
    (1, "middle"): ("lingula", "left mid zone"),
    (1, "lower"): ("left lower lobe", "left base"),
}

PRESENT = (
    "{Np}.",
    "There is {np}.",
    "{Np} noted.",
    "Findings consistent with {np}.",
    "{Np} is seen.",
)
PLURAL = ("{Np}.", "There are {np}.", "{Np} noted.", "Findings consistent with {np}.", "{Np} are seen.")
UNCERTAIN = (
    "Possible {np}.",
    "{Np} cannot be excluded.",
    "Questionable {np}.",
    "Appearances may represent {np}.",
    "Equivocal for {np}.",
)
ABSENT = (
    "No {term}.",
    "No evidence of {term}.",
    "Negative for {term}.",
    "{Term} is not seen.",
    "No visible {term}.",
)
CHANGED = {
    "new": ("New {np}.", "{Np}, new since the prior film.", "Interval development of {np}."),
    "worsened": (
        "Worsening {np}.",
        "Interval increase in {np}.",
        "{Np}, progressed from the prior film.",
        "Increased {np} compared with before.",
    ),
    "improved": (
        "Improving {np}.",
        "Interval decrease in {np}.",
        "{Np}, less than on the prior film.",
        "Decreased {np} compared with before.",
    ),
    "stable": (
        "Unchanged {np}.",
        "Stable {np}.",
        "{Np}, similar to the prior film.",
        "No significant change in {np}.",
    ),
    "resolved": (
        "{Term} has resolved.",
        "Previously seen {term} is no longer visible.",
        "Interval resolution of {term}.",
        "Complete clearing of {term}.",
    ),
}

TERMS = {
    "Enlarged Cardiomediastinum": ("mediastinal widening", "widening of the mediastinum"),
    "Cardiomegaly": ("cardiomegaly", "cardiac enlargement", "enlargement of the heart"),
    "Lung Lesion": ("pulmonary nodule", "lung mass", "nodule or mass"),
    "Edema": ("pulmonary edema", "edema", "interstitial edema"),
    "Consolidation": ("consolidation", "focal consolidation", "airspace consolidation"),
    "Atelectasis": ("atelectasis",),
    "Pneumothorax": ("pneumothorax",),
    "Pleural Effusion": ("pleural effusion", "effusion"),
}
"""What a finding is called when it is denied or gone."""

NORMAL = {
    "Cardiomegaly": (
        "Heart size is normal.",
        "The heart is not enlarged.",
        "Cardiac silhouette within normal limits.",
    ),
    "Enlarged Cardiomediastinum": ("Mediastinal contours are normal.", "Unremarkable mediastinum."),
}
"""Denials that do not name the finding."""

SHORT = (
    ("pneumothorax", "PTX"),
    ("right upper lobe", "RUL"),
    ("right middle lobe", "RML"),
    ("right lower lobe", "RLL"),
    ("left upper lobe", "LUL"),
    ("left lower lobe", "LLL"),
    ("bilateral", "bilat"),
    ("consistent with", "c/w"),
    ("compared with", "cf"),
    ("without", "w/o"),
    ("endotracheal tube", "ETT"),
    ("nasogastric tube", "NGT"),
    ("central venous catheter", "CVC"),
    ("evidence of", "e/o"),
    ("within normal limits", "WNL"),
)
"""What hurried people write instead; longer phrases before the shorter ones they hold."""

DEVICES = {
    "central line": (
        "Right central venous catheter with its tip in the SVC.",
        "Central venous catheter in place.",
    ),
    "endotracheal tube": (
        "Endotracheal tube tip lies above the carina.",
        "Endotracheal tube in satisfactory position.",
    ),
    "nasogastric tube": (
        "Nasogastric tube passes below the diaphragm.",
        "Nasogastric tube tip in the stomach.",
    ),
    "pacemaker": ("Pacemaker with leads in place.", "Cardiac pacemaker in situ."),
    "chest tube": ("Chest tube in place.", "Pleural drain in situ."),
    "leads": ("Monitoring leads overlie the chest.", "ECG leads project over the chest."),
}
NO_DEVICES = ("No lines or tubes.", "No indwelling devices.")

CLEAR = ("Lungs are clear.", "Clear lungs.", "Both lungs are clear and well expanded.")
BONES = (
    "Visualised bones are unremarkable.",
    "Mild degenerative change of the spine.",
    "No acute bony abnormality.",
    "Osseous structures intact.",
)
NOTHING_ACUTE = (
    "No acute cardiopulmonary abnormality.",
    "Normal chest.",
    "No acute disease in the chest.",
    "Chest within normal limits.",
)
INDICATIONS = (
    "Cough and fever for three days.",
    "Shortness of breath. Evaluate for edema or effusion.",
    "Chest pain, rule out pneumothorax.",
    "Line placement.",
    "Before surgery.",
    "Follow-up of known disease.",
    "Fall. Query rib fracture.",
    "Hypoxia, ?consolidation.",
)


def phrase(lesion: Lesion, rng: np.random.Generator) -> tuple[str, bool]:
    """(noun phrase, whether it is a plural) of a finding that is there; degree, side and place in words."""
    side, s = _SIDES[lesion.side], lesion.severity
    degree = "mild" if s < 0.45 else "moderate" if s < 0.75 else "severe"
    size = "small" if s < 0.45 else "moderate" if s < 0.75 else "large"
    lobe = _one(_LOBES.get((lesion.side, lesion.zone), ("",)), rng)
    if lesion.finding == "Enlarged Cardiomediastinum":
        return f"{degree} {_one(TERMS[lesion.finding], rng)}", False
    if lesion.finding == "Cardiomegaly":
        return f"{degree} {_one(TERMS[lesion.finding], rng)}", False
    if lesion.finding == "Lung Lesion":
        size_mm = round(280 * (0.06 + 0.165 * s))
        kind = f"{size_mm} mm nodule" if size_mm < 30 else f"{size_mm / 10:.1f} cm mass"
        return f"{_one(('rounded ', 'well-defined ', ''), rng)}{kind} in the {lobe}", False
    if lesion.finding == "Edema":
        kind = "interstitial edema" if s < 0.5 else "pulmonary edema"
        return f"{degree} {kind}", False
    if lesion.finding == "Consolidation":
        return _one((f"{lobe} consolidation", f"airspace consolidation in the {lobe}"), rng), False
    if lesion.finding == "Atelectasis":
        kind = _one(("basal atelectasis", "plate-like atelectasis", "linear atelectasis"), rng)
        return f"{side} {kind}", False
    if lesion.finding == "Pneumothorax":
        return f"{size} {side} {_one(('pneumothorax', 'apical pneumothorax'), rng)}", False
    if lesion.side == 0:
        return f"{size} bilateral pleural effusions", True
    return f"{size} {side} pleural effusion", False


def _one(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
