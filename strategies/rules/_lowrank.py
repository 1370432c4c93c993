"""Sums of low-rank products, sum_k c_k B_k A_k, in float64 and in factored form: a dense [out, in] matrix is never made.

Shape letters: O out, I in, R sum of the ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from strategies.adapters import factor_of

Term = tuple[float, Tensor, Tensor]
"""c, B [O,r], A [r,I]."""


def layers(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Names of (A, B) of each adapted layer, in order of the layers' names.

    Raises:
        ValueError: a factor without its other.
    """
    found: dict[str, dict[str, str]] = {}
    for name in names:
        if (factor := factor_of(name)) is not None:
            found.setdefault(name.rpartition(".lora_")[0], {})[factor] = name
    for layer, parts in found.items():
        if len(parts) != 2:
            raise ValueError(f"{layer}: has factor {next(iter(parts))} of its adapter and not the other")
    return {layer: (found[layer]["A"], found[layer]["B"]) for layer in sorted(found)}


def stacked(terms: Sequence[Term]) -> tuple[Tensor, Tensor]:
    """B [O,R] and A [R,I] whose product is the sum of ``terms``."""
    return (
        torch.cat([c * b.double() for c, b, _ in terms], dim=1),
        torch.cat([a.double() for _, _, a in terms], dim=0),
    )


def norm(terms: Sequence[Term]) -> float:
    """Frobenius norm of the sum, from the triangles of two thin QR decompositions."""
    b_OR, a_RI = stacked(terms)
    left, right = torch.linalg.qr(b_OR, mode="r").R, torch.linalg.qr(a_RI.T, mode="r").R
    return float(torch.linalg.matrix_norm(left @ right.T))


def svd(terms: Sequence[Term]) -> tuple[Tensor, Tensor, Tensor]:
    """Singular values [m], largest first, left [O,m] and right [m,I] singular vectors of the sum; m = min(R, O, I)."""
    b_OR, a_RI = stacked(terms)
    q_left, r_left = torch.linalg.qr(b_OR)
    q_right, r_right = torch.linalg.qr(a_RI.T)
    u, values, v = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
    return values, q_left @ u, v @ q_right.T
