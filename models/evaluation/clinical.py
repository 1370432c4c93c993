"""Other people's scores of how alike two reports are: RadGraph, RaTEScore, GREEN, CheXbert.

None is needed, none is installed with this package, and each brings a network whose weights somebody must have put on
this machine. What is missing is said, with how to get it; a score is never left out in silence. Nothing is downloaded
unless ``download`` says so.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from models.evaluation.metrics import Floats
from models.evaluation.nearest import PairScorer


class MissingScorer(RuntimeError):
    """A scorer's package or weights are not on this machine. The text says which, and how to get them."""


class _Kind(NamedTuple):
    module: str
    install: str
    weights: str
    build: Callable[[Any], PairScorer]


def _radgraph(module: Any) -> PairScorer:
    score = module.F1RadGraph(reward_level="partial")
    return lambda texts, references: score(hyps=list(texts), refs=list(references))[1]


def _ratescore(module: Any) -> PairScorer:
    score = module.RaTEScore()
    return lambda texts, references: score.compute_score(list(texts), list(references))


def _green(module: Any) -> PairScorer:
    score = module.GREEN("StanfordAIMI/GREEN-radllama2-7b", output_dir=".")
    return lambda texts, references: score(list(references), list(texts))[2]


def _chexbert(module: Any) -> PairScorer:
    labeller = module.F1CheXbert()

    def present(text: str) -> set[int]:
        return {number for number, label in enumerate(labeller.get_label(text)) if label == 1}

    def score(texts: Sequence[str], references: Sequence[str]) -> Floats:
        pairs = [(present(a), present(b)) for a, b in zip(texts, references)]
        return np.array([2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0 for a, b in pairs])

    return score


_KINDS = {
    "radgraph": _Kind("radgraph", "pip install radgraph requests", "the RadGraph-XL model", _radgraph),
    "ratescore": _Kind("RaTEScore", "pip install RaTEScore", "its entity and synonym models", _ratescore),
    "green": _Kind(
        "green_score", "pip install green_score", "StanfordAIMI/GREEN-RadLlama2-7b (14 GB, a GPU is needed)", _green
    ),
    "chexbert": _Kind("f1chexbert", "pip install f1chexbert", "chexbert.pth and bert-base-uncased", _chexbert),
}
NAMES = tuple(_KINDS)


def scorer(name: str, download: bool = False) -> PairScorer:
    """The scorer called ``name``: (texts, references) to a score of each pair.

    Args:
        download: whether its package may fetch weights that are not here yet.

    Raises:
        ValueError: no scorer has that name.
        MissingScorer: its package or its weights are missing.
    """
    if name not in _KINDS:
        raise ValueError(f"clinical scorer {name!r}: one of {', '.join(NAMES)}")
    kind = _KINDS[name]
    with _offline(not download):
        try:
            module = importlib.import_module(kind.module)
        except ImportError as error:
            raise MissingScorer(
                f"clinical scorer {name!r}: package {error.name or kind.module!r} is missing; {kind.install}, in an "
                f"environment of its own if its dependencies do not fit this one"
            ) from None
        try:
            return kind.build(module)
        except Exception as error:
            # Each package fails in its own way without weights: OSError, network errors, its own.
            raise MissingScorer(
                f"clinical scorer {name!r}: its weights could not be loaded ({type(error).__name__}); it needs "
                f"{kind.weights}. Load it once with downloads allowed on a machine that may, and copy its cache here"
            ) from error


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """Keeps the hub libraries off the network while a scorer is made."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    before = {name: os.environ.get(name) for name in names}
    if wanted:
        os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
