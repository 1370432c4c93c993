"""The ``diagnosis`` benchmark: probabilities of each finding for each film of a view, judged by the shared protocol."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import torch

from models.loop import pick_precision
from models.model import CxrModel
from models.objectives.diagnosis import Diagnosis
from models.studies.views import Labelled


@torch.inference_mode()
def probabilities(
    model: CxrModel, objective: Diagnosis, view: Labelled, device: torch.device, batch_size: int = 128
) -> np.ndarray:
    """Probability of each finding, float32 [N,F], in the order of the view. The model is left in eval mode."""
    model.eval()
    dtype = pick_precision("auto", device)
    out = []
    for start in range(0, len(view), batch_size):
        images = view.batch(torch.arange(start, min(start + batch_size, len(view)))).images.to(device)
        with torch.autocast(device.type, dtype) if dtype else nullcontext():
            logits = objective.logits(model, images)
        out.append(logits.float().sigmoid().cpu())
    found = torch.cat(out) if out else torch.zeros(0, len(objective.cfg.findings))
    return found.numpy()
