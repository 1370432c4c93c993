"""What the contrastive text objectives share: the loss over cosines, and which columns are no negatives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from models.language.canonical import canonical_keys


def contrast(queries_BD: Tensor, documents_MD: Tensor, excluded_BM: Tensor, scale: float) -> Tensor:
    """Mean over the queries of the cross-entropy of ``scale`` times their cosines with all documents, the target of
    query i being document i; from queries to documents only (HardNegativeNLLLoss of LLM2Vec, arXiv 2404.05961).

    excluded_BM: documents that a query is not compared with. Computed in float32 whatever the autocast.
    """
    with torch.autocast(queries_BD.device.type, enabled=False):
        q, d = F.normalize(queries_BD.float(), dim=-1), F.normalize(documents_MD.float(), dim=-1)
        scores_BM = (scale * q @ d.T).masked_fill(excluded_BM, float("-inf"))
        return F.cross_entropy(scores_BM, torch.arange(len(q), device=q.device))


def false_negatives(queries: Sequence[str], positives: Sequence[str], negatives: Sequence[str]) -> Tensor:
    """bool [B, B + len(negatives)]: documents that would count as wrong answers and are right ones.

    Of the other positives: one that equals the query or its positive, or whose own query equals this one. Of the hard
    negatives: one that equals the query or its positive.
    """
    q, p, n = (torch.from_numpy(canonical_keys(texts)) for texts in (queries, positives, negatives))
    others = (p[None] == p[:, None]) | (p[None] == q[:, None]) | (q[None] == q[:, None])
    others.fill_diagonal_(False)
    hard = (n[None] == p[:, None]) | (n[None] == q[:, None])
    return torch.cat([others, hard], dim=1)
