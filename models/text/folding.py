"""Folds: low-rank changes of the frozen weights under the adapters, for the rules that merge them in (FLoRA, FedEx).

A fold says W += sum_k c_k B_k A_k for every adapted layer. Its terms are the sites' own factors, so that it can travel in
the type that these came in and loses nothing. Folds form a chain: each link is named by the SHA-256 of the link before and
of all that it changes, and the chain begins with the hash of the weights as they were built. Two sides whose heads are
equal have the same base.

The dense change of one layer at a time is made in float64 and added; W is rounded to its own type once a fold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.checkpoint import hash_tensors

_A, _B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class Fold:
    """terms: (rank, c) of each; tensors: ``<layer>.lora_A.weight`` [R,I] and ``<layer>.lora_B.weight`` [O,R] of each
    layer, the terms side by side, R the sum of their ranks."""

    terms: tuple[tuple[int, float], ...]
    tensors: Mapping[str, Tensor]

    @property
    def layers(self) -> list[str]:
        """Paths of the layers that change."""
        return sorted({name.removesuffix(_A) for name in self.tensors if name.endswith(_A)})

    def link(self, before: str) -> str:
        """The head of the chain after this fold."""
        terms = json.dumps([[rank, float(c).hex()] for rank, c in self.terms])
        return hashlib.sha256(f"{before}|{terms}|{hash_tensors(self.tensors)}".encode()).hexdigest()

    def delta(self, layer: str) -> Tensor:
        """What is added to the weight [O,I] of ``layer``, float64."""
        scales = torch.cat([torch.full((rank,), c, dtype=torch.float64) for rank, c in self.terms])
        return (self.tensors[f"{layer}{_B}"].double() * scales) @ self.tensors[f"{layer}{_A}"].double()

    def wrong(self, shapes: Mapping[str, tuple[int, int]]) -> str | None:
        """Why it does not fit layers with weights of these ``shapes`` (O, I); None if it does."""
        total = sum(rank for rank, _ in self.terms)
        want = {f"{n}{_A}": (total, i) for n, (_, i) in shapes.items()} | {
            f"{n}{_B}": (o, total) for n, (o, _) in shapes.items()
        }
        odd = sorted(want.keys() ^ self.tensors.keys())
        odd += [name for name in sorted(want.keys() & self.tensors.keys()) if self.tensors[name].shape != want[name]]
        return f"fold: {odd[0]} is missing, superfluous or of another shape" if odd else None


def heads(base: str, folds: Sequence[Fold]) -> list[str]:
    """The head of the chain after each of ``folds``, from ``base``."""
    out: list[str] = []
    for fold in folds:
        out.append(fold.link(out[-1] if out else base))
    return out


class Foldable:
    """The frozen weights of the adapted layers, and which folds are in them.

    The weights as they were built are kept beside once something is folded, so that the model of another chain can be
    made of the same object; that costs their memory a second time.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter]) -> None:
        self.weights = dict(weights)
        self.heads: list[str] = []
        self._built: dict[str, Tensor] = {}

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        return {name: tuple(w.shape) for name, w in self.weights.items()}

    def shared(self, wanted: Sequence[str]) -> int:
        """How many of the folds ``wanted``, named by their heads, are in already; others are taken out."""
        if self.heads != list(wanted[: len(self.heads)]):
            with torch.no_grad():
                for name, built in self._built.items():
                    self.weights[name].copy_(built)
            self.heads = []
        return len(self.heads)

    @torch.no_grad()
    def add(self, fold: Fold, head: str) -> None:
        """Fold in ``fold``, after which the chain's head is ``head``.

        Raises:
            ValueError: it does not fit.
        """
        if wrong := fold.wrong(self.shapes):
            raise ValueError(wrong)
        if not self._built:
            self._built = {name: w.detach().to("cpu", copy=True) for name, w in self.weights.items()}
        for name in fold.layers:
            weight = self.weights[name]
            weight.copy_(weight.double() + fold.delta(name).to(weight.device))
        self.heads.append(head)
