"""A view of films of which some are labelled: for self-training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.studies.schema import Label
from models.studies.splits import split
from models.studies.store import Fit, Progress, Store
from models.studies.views import ImageBatch, LabelledBatch, View, ViewError


class PartlyLabelled(View):
    """Labelled films first, then unlabelled ones.

    A film is labelled if it has an answer, PRESENT or ABSENT, to one of ``findings`` at least. Its patients' other
    films are unlabelled unless they have an answer of their own. Unlabelled films are dealt into ``folds`` by patient
    and hash, the same on every machine; only the first ``use`` folds are here, so that a later phase may have more.

    Attributes:
        labelled: how many of the items, from the first on, are labelled.
        labels: int8 [n, F] of ``Label`` codes; UNCERTAIN or UNMENTIONED throughout for unlabelled items.
    """

    def __init__(
        self,
        store: Store,
        rows: np.ndarray,
        size: int,
        fit: Fit,
        findings: Sequence[str],
        folds: int = 1,
        use: int = 1,
        progress: Progress | None = None,
    ) -> None:
        self.findings = tuple(findings)
        rows = np.asarray(rows, dtype=np.int64)
        unknown = [f for f in findings if f not in store.findings]
        labels = store.labels(findings)
        answered = np.isin(labels[rows], (Label.PRESENT, Label.ABSENT)).any(axis=1)
        open_rows = rows[~answered]
        open_rows = open_rows[fold_of(store, open_rows, folds) < use]
        self.labelled = int(answered.sum())
        rows = np.concatenate([rows[answered], open_rows])
        if not len(rows):
            hint = f"; the store does not know {', '.join(unknown)}" if unknown else ""
            raise ViewError(f"no film among the rows given has a label or is in the folds used{hint}")
        self.labels = labels[rows]
        super().__init__(store, rows, size, fit, progress)

    @property
    def unlabelled(self) -> int:
        """How many of the items, from ``labelled`` on, are unlabelled."""
        return len(self) - self.labelled

    def batch(self, indices: Tensor | np.ndarray | Sequence[int]) -> ImageBatch:
        """A ``LabelledBatch`` of labelled items, or an ``ImageBatch`` of unlabelled ones.

        Raises:
            ViewError: a batch of both: their losses differ.
        """
        index = indices.numpy() if isinstance(indices, Tensor) else np.asarray(indices, dtype=np.int64)
        images = self._images(self.rows[index])
        if (index < self.labelled).all():
            return LabelledBatch(images, torch.from_numpy(self.labels[index]))
        if (index < self.labelled).any():
            raise ViewError("a batch holds labelled and unlabelled items; give items of one kind")
        return ImageBatch(images)


def fold_of(store: Store, rows: np.ndarray, folds: int) -> np.ndarray:
    """Fold (int64 [n], 0 to ``folds`` - 1) of the patient of each row."""
    if folds < 1:
        raise ValueError(f"folds {folds}: at least 1")
    equal = {str(i): 1 / folds for i in range(folds)}
    return split(store.patients.keys, equal, salt="unlabelled folds").astype(np.int64)[store.patients.codes[rows]]
