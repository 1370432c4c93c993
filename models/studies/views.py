"""What an objective reads from a store: torch datasets that yield typed batches.

``view.batch(indices)`` copies rows out of one memory-mapped array of resized images; nothing is decoded. With
a ``DataLoader``, give ``collate_fn=view.collate``; whole batches are fetched at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Self, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from models.studies.schema import Label
from models.studies.store import Fit, Progress, Store

T = TypeVar("T")
Section = Literal["findings", "impression"]


class ViewError(ValueError):
    """A view that this store cannot give. The text says why and what to do."""


@dataclass(frozen=True)
class Pair(Generic[T]):
    """Two of a kind of one patient, in time order."""

    prior: T
    current: T


@dataclass(frozen=True)
class Batch:
    """Base of the typed batches: tensors, or pairs of tensors, all of B items; texts and flags beside them stay as they
    are."""

    def __len__(self) -> int:
        return len(_tensors(self)[0])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The batch with all tensors on ``device``."""
        return _map(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The batch in page-locked memory, for asynchronous copies to a GPU."""
        return _map(self, lambda tensor: tensor.pin_memory())


@dataclass(frozen=True)
class ImageBatch(Batch):
    """images: uint8 [B, 1, S, S]."""

    images: Tensor


@dataclass(frozen=True)
class LabelledBatch(ImageBatch):
    """images: uint8 [B, 1, S, S]; labels: int8 [B, F] of ``Label`` codes."""

    labels: Tensor


@dataclass(frozen=True)
class PairBatch(Batch):
    """images: pair of uint8 [B, 1, S, S]; labels: pair of int8 [B, F]; gap_days: int32 [B], -1 unknown."""

    images: Pair[Tensor]
    labels: Pair[Tensor]
    gap_days: Tensor


@dataclass(frozen=True)
class TextBatch(Batch):
    """items: int64 [B], numbers of the items in the view; texts: B reports."""

    items: Tensor
    texts: tuple[str, ...]


class View(Dataset[Any]):
    """Base of the views.

    Attributes:
        rows: int64 [n], the store row of every item (for pairs: of the current image).
        patients: int64 [n], patient code of every item (``store.patients.keys`` names them).
        findings: the label columns, in order; empty for views without labels.
    """

    findings: tuple[str, ...] = ()

    def __init__(self, store: Store, rows: np.ndarray, size: int, fit: Fit, progress: Progress | None) -> None:
        self.store = store
        self.size = size
        self.rows = rows
        self.patients = store.patients.codes[rows]
        self._pixels = np.asarray(store.resized(size, fit, progress))

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Tensor | np.ndarray | Sequence[int]) -> Any:
        """Typed batch of the items at ``indices``."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> Any:
        """The item as a batch of one."""
        return self.batch([index])

    def __getitems__(self, indices: Sequence[int]) -> Any:
        """What a DataLoader fetches: one batch, not a list of items."""
        return self.batch(indices)

    @staticmethod
    def collate(batch: T) -> T:
        """For ``DataLoader(collate_fn=...)``: ``__getitems__`` has made the batch already."""
        return batch

    def _images(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(self._pixels.take(rows, axis=0)).unsqueeze(1)


class Images(View):
    """Every image, without labels."""

    def __init__(
        self,
        store: Store,
        rows: np.ndarray | None = None,
        size: int = 224,
        fit: Fit = "crop",
        progress: Progress | None = None,
    ) -> None:
        _refuse(self.missing(store, rows))
        super().__init__(store, _rows(store, rows), size, fit, progress)

    @classmethod
    def missing(cls, store: Store, rows: np.ndarray | None = None) -> str | None:
        """Why this view cannot be made of ``rows``; None when it can."""
        return None if len(_rows(store, rows)) else "no image is among the rows given; give at least one"

    def batch(self, indices: Tensor | np.ndarray | Sequence[int]) -> ImageBatch:
        """``ImageBatch`` of the items at ``indices``."""
        return ImageBatch(self._images(self.rows[_index(indices)]))


class Labelled(View):
    """Images with at least one of ``findings`` mentioned (present, absent or uncertain).

    Attributes:
        labels: int8 [n, F] of ``Label`` codes.
    """

    def __init__(
        self,
        store: Store,
        rows: np.ndarray | None = None,
        size: int = 224,
        fit: Fit = "crop",
        findings: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> None:
        _refuse(self.missing(store, rows, findings))
        self.findings = tuple(findings)
        rows = self._labelled(store, rows, findings)
        self.labels = store.labels(findings)[rows]
        super().__init__(store, rows, size, fit, progress)

    @classmethod
    def missing(cls, store: Store, rows: np.ndarray | None = None, findings: Sequence[str] = ()) -> str | None:
        """Why this view cannot be made of ``rows``; None when it can."""
        if not findings:
            return f"findings: none given; this store knows: {', '.join(store.findings)}"
        unknown = _unknown_findings(store, findings)
        if unknown:
            return unknown
        if not len(cls._labelled(store, rows, findings)):
            return (
                f"no image among the rows given has any of the labels {', '.join(findings)}; "
                f"labelled here: {', '.join(_mentioned(store, _rows(store, rows))) or 'none'}"
            )
        return None

    @staticmethod
    def _labelled(store: Store, rows: np.ndarray | None, findings: Sequence[str]) -> np.ndarray:
        rows = _rows(store, rows)
        return rows[(store.labels(findings)[rows] != Label.UNMENTIONED).any(axis=1)]

    def batch(self, indices: Tensor | np.ndarray | Sequence[int]) -> LabelledBatch:
        """``LabelledBatch`` of the items at ``indices``."""
        index = _index(indices)
        return LabelledBatch(self._images(self.rows[index]), torch.from_numpy(self.labels[index]))


class Pairs(View):
    """Each image with one image of the patient's prior study.

    The prior image is one of the same projection where the prior study has one, else (unless ``same_view``) a
    frontal one, else any. Of several it is the last in the store's order, the latest where the
    manifest is in the order of time.

    Attributes:
        pairs: ``Pair`` of int64 [n] store rows.
        gap_days: int32 [n], days from prior to current; -1 where days are unknown.
        labels: ``Pair`` of int8 [n, F].
    """

    def __init__(
        self,
        store: Store,
        rows: np.ndarray | None = None,
        size: int = 224,
        fit: Fit = "crop",
        findings: Sequence[str] = (),
        same_view: bool = False,
        without_flags: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> None:
        _refuse(self.missing(store, rows, findings, same_view, without_flags))
        self.findings = tuple(findings)
        self.pairs = _find_pairs(store, _rows(store, rows), same_view, without_flags)
        days = store.integers("day", -1)
        before, now = days[self.pairs.prior], days[self.pairs.current]
        self.gap_days = np.where((before < 0) | (now < 0), -1, now - before).astype(np.int32)
        labels = store.labels(findings)
        self.labels = Pair(labels[self.pairs.prior], labels[self.pairs.current])
        super().__init__(store, self.pairs.current, size, fit, progress)

    @classmethod
    def missing(
        cls,
        store: Store,
        rows: np.ndarray | None = None,
        findings: Sequence[str] = (),
        same_view: bool = False,
        without_flags: Sequence[str] = (),
    ) -> str | None:
        """Why this view cannot be made of ``rows``; None when it can."""
        unknown = _unknown_findings(store, findings)
        if unknown:
            return unknown
        if not len(_find_pairs(store, _rows(store, rows), same_view, without_flags).current):
            return (
                "no patient among the rows given has a study with a prior"
                f"{' of the same projection' if same_view else ''}; "
                "pairs need a day or an order for each study"
            )
        return None

    def batch(self, indices: Tensor | np.ndarray | Sequence[int]) -> PairBatch:
        """``PairBatch`` of the items at ``indices``."""
        index = _index(indices)
        prior, current = self.pairs.prior[index], self.pairs.current[index]
        return PairBatch(
            images=Pair(self._images(prior), self._images(current)),
            labels=Pair(*(torch.from_numpy(part[index]) for part in (self.labels.prior, self.labels.current))),
            gap_days=torch.from_numpy(self.gap_days[index]),
        )


class Reports(View):
    """The text of every study that has one, once however many images it has. No image is read.

    Attributes:
        texts: the text of each item: ``sections`` in their order, those that are there.
        parts: the same, section by section; None where a study lacks one.
        rows: the first row of each study. labels: int8 [n, 0].
    """

    def __init__(
        self,
        store: Store,
        rows: np.ndarray | None = None,
        sections: Sequence[Section] = ("findings", "impression"),
        tagged: bool = False,
    ) -> None:
        """``tagged``: each section begins with its name, ``[FINDINGS]`` or ``[IMPRESSION]``."""
        _refuse(self.missing(store, rows, sections))
        found = _find_reports(store, _rows(store, rows), sections)
        self.store = store
        self.sections = tuple(sections)
        self.rows = np.array(list(found), dtype=np.int64)
        self.patients = store.patients.codes[self.rows]
        self.labels = np.zeros((len(self.rows), 0), dtype=np.int8)
        self.parts = list(found.values())
        self.texts = [
            " ".join(f"[{name.upper()}] {text}" if tagged else text for name, text in zip(sections, parts) if text)
            for parts in self.parts
        ]

    @classmethod
    def missing(
        cls,
        store: Store,
        rows: np.ndarray | None = None,
        sections: Sequence[Section] = ("findings", "impression"),
    ) -> str | None:
        """Why this view cannot be made of ``rows``; None when it can."""
        unknown = [name for name in sections if name not in get_args(Section)]
        if unknown or not sections:
            return f"sections {list(sections)}: give some of {', '.join(get_args(Section))}"
        if not _find_reports(store, _rows(store, rows), sections):
            return f"no study among the rows given has a report with {' or '.join(sections)}; ingest reports with the images"
        return None

    def batch(self, indices: Tensor | np.ndarray | Sequence[int]) -> TextBatch:
        """``TextBatch`` of the items at ``indices``."""
        index = _index(indices)
        return TextBatch(torch.from_numpy(index), tuple(self.texts[i] for i in index))


def _find_reports(store: Store, rows: np.ndarray, sections: Sequence[Section]) -> dict[int, tuple[str | None, ...]]:
    """Sections of each study with text, by its first row among ``rows``. White space alone is no text."""
    studies, columns = store.strings("study"), [store.strings(name) for name in sections]
    first: dict[str, int] = {}
    for row in rows:
        first.setdefault(studies[row], int(row))
    parts = {row: tuple((column[row] or "").strip() or None for column in columns) for row in first.values()}
    return {row: texts for row, texts in parts.items() if any(texts)}


def _find_pairs(store: Store, rows: np.ndarray, same_view: bool, without_flags: Sequence[str]) -> Pair[np.ndarray]:
    studies, priors = store.strings("study"), store.strings("prior")
    views, flags = store.strings("view"), store.strings("flags")
    unwanted = set(without_flags)
    usable = [
        int(row)
        for row in rows
        if not unwanted or unwanted.isdisjoint(part.split(":")[0] for part in (flags[row] or "").split(","))
    ]
    by_study: dict[str, list[int]] = {}
    for row in usable:
        by_study.setdefault(studies[row], []).append(row)
    found = []
    for row in usable:
        before = by_study.get(priors[row], []) if priors[row] else []
        same = [b for b in before if views[b] == views[row]]
        frontal = [b for b in before if views[b] in ("PA", "AP")] if not same_view else []
        candidates = same or frontal or ([] if same_view else before)
        if candidates:
            found.append((candidates[-1], row))
    pairs = np.array(found, dtype=np.int64).reshape(-1, 2)
    return Pair(np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1]))


def _rows(store: Store, rows: np.ndarray | None) -> np.ndarray:
    if rows is None:
        return np.arange(len(store))
    rows = np.asarray(rows, dtype=np.int64)
    if rows.size and not (rows.min() >= 0 and rows.max() < len(store)):
        raise ViewError(f"rows: {rows.min()} to {rows.max()} given, the store has 0 to {len(store) - 1}")
    return rows


def _index(indices: Tensor | np.ndarray | Sequence[int]) -> np.ndarray:
    return indices.numpy() if isinstance(indices, Tensor) else np.asarray(indices, dtype=np.int64)


def _unknown_findings(store: Store, findings: Sequence[str]) -> str | None:
    unknown = [f for f in findings if f not in store.findings]
    if not unknown:
        return None
    return f"findings: {', '.join(map(repr, unknown))} not in this store; it knows: {', '.join(store.findings)}"


def _mentioned(store: Store, rows: np.ndarray) -> list[str]:
    mentioned = (store.labels(store.findings)[rows] != Label.UNMENTIONED).any(axis=0)
    return [finding for finding, yes in zip(store.findings, mentioned) if yes]


def _refuse(reason: str | None) -> None:
    if reason:
        raise ViewError(reason)


def _tensors(batch: Any) -> list[Tensor]:
    values = [getattr(batch, f.name) for f in dataclasses.fields(batch)]
    return [t for v in values for t in ([v] if isinstance(v, Tensor) else _tensors(v) if _has_parts(v) else [])]


def _has_parts(value: Any) -> bool:
    return dataclasses.is_dataclass(value)


def _map(batch: Any, change: Any) -> Any:
    parts = {}
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            parts[field.name] = change(value)
        elif _has_parts(value):
            parts[field.name] = _map(value, change)
    return dataclasses.replace(batch, **parts)
