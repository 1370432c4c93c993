"""The ``diagnosis`` benchmark: probabilities of each finding for each film of a view, judged by the shared protocol."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch

from models.loop import pick_precision
from models.model import CxrModel
from models.objectives import Objective
from models.studies.views import Labelled


@torch.inference_mode()
def probabilities(
    model: CxrModel,
    objective: Objective,
    view: Labelled,
    device: torch.device,
    batch_size: int = 128,
    logits: Callable[[CxrModel, torch.Tensor], torch.Tensor] | None = None,
) -> np.ndarray:
    """Probability of each finding, float32 [N,F], in the order of the view. The model is left in eval mode.

    ``logits``: from model and films to [B,F]; the objective's own by default.
    """
    model.eval()
    dtype = pick_precision("auto", device)
    out = []
    for start in range(0, len(view), batch_size):
        images = view.batch(torch.arange(start, min(start + batch_size, len(view)))).images.to(device)
        with torch.autocast(device.type, dtype) if dtype else nullcontext():
            found = (logits or objective.logits)(model, images)
        out.append(found.float().sigmoid().cpu())
    whole = torch.cat(out) if out else torch.zeros(0, len(objective.cfg.findings))
    return whole.numpy()
