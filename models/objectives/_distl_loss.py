"""Losses of self-distillation: between views, through prototypes or films; teacher targets; the spread of features.

Shape letters: V student views, I teacher views (2), B images, K prototypes, D features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """``x`` in at least single precision: sums over 65,536 prototypes do not survive half."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def pairs(views: int, teachers: int = 2) -> int:
    """How many (teacher view, other student view) pairs there are: 18 for 2 and 10."""
    return teachers * views - min(teachers, views)


def _other(teachers: int, first: int, like_Vx: Tensor) -> Tensor:
    """[teachers,V]: 0 where the student's view ``first + v`` is the teacher's own, as a view is not compared with itself,
    else 1."""
    student = first + torch.arange(len(like_Vx), device=like_Vx.device)
    return (torch.arange(teachers, device=like_Vx.device)[:, None] != student).to(like_Vx.dtype)


def view_loss(student_VBK: Tensor, targets_IBK: Tensor, temperature: float, first: int, views: int) -> Tensor:
    """This chunk's share of the DINO loss (Caron et al., arXiv 2104.14294): the mean over all pairs of a teacher view
    and *another* student view, and over the batch, of ``-targets . log softmax(student / temperature)``.

    ``student_VBK`` are the logits of the student's views ``first`` to ``first + V - 1`` of ``views``; the teacher's
    views are the first ``I`` of them. The shares of chunks that cover all views sum to the loss.

    As targets sum to one, a term is ``logsumexp - targets . logits``: one product of all views with all targets and
    one pass of logsumexp, in place of a log-softmax for every pair.
    """
    B = student_VBK.shape[1]
    scaled = wide(student_VBK) / temperature
    other = _other(len(targets_IBK), first, scaled)
    agreement = torch.einsum("ibk,vbk->iv", targets_IBK.to(scaled.dtype), scaled)
    spread = torch.logsumexp(scaled, dim=-1).sum(dim=1)
    total = (other.sum(dim=0) * spread).sum() - (other * agreement).sum()
    return total / (B * pairs(views, len(targets_IBK)))


def contrast_loss(
    student_VbD: Tensor, teacher_TBD: Tensor, temperature: float, first: int, views: int, start: int = 0
) -> Tensor:
    """This chunk's share of the loss that tells films apart (InfoNCE between student and teacher, as in MoCo v3, Chen et
    al., arXiv 2104.02057, without its factor): the mean over all pairs of a teacher view and *another* student view, and
    over the chunk's films, of the cross-entropy of finding the same film among the teacher's B.

    Vectors have unit length. The student's views are ``first`` to ``first + V - 1`` of ``views``; its b films are those
    from ``start`` on. The shares of chunks that cover all views sum to the loss of their films. 0 for a batch of one.
    """
    V, b, _ = student_VbD.shape
    T, B, D = teacher_TBD.shape
    similar = wide(student_VbD) @ wide(teacher_TBD).reshape(T * B, D).T / temperature
    similar = similar.view(V, b, T, B)
    film = torch.arange(b, device=similar.device)
    lost = torch.logsumexp(similar, dim=-1) - similar[:, film, :, start + film].permute(1, 0, 2)  # [V,b,T]
    return (lost.sum(dim=1) * _other(T, first, lost).T).sum() / (b * pairs(views, T))


def centred(logits_NK: Tensor, centre_K: Tensor, temperature: float) -> Tensor:
    """Teacher targets [N,K]: softmax of the centred, sharpened logits."""
    return F.softmax((wide(logits_NK) - centre_K) / temperature, dim=-1)


def sinkhorn(logits_NK: Tensor, temperature: float, rounds: int = 3) -> Tensor:
    """Teacher targets [N,K] by Sinkhorn-Knopp (Caron et al., arXiv 2006.09882; DINOv2, arXiv 2304.07193): rows sum to
    one and, after enough ``rounds``, every prototype gets the same share of the batch.

    In logarithms, so that a temperature of 0.04 does not overflow.
    """
    log_q = wide(logits_NK) / temperature
    for _ in range(rounds):
        log_q = log_q - torch.logsumexp(log_q, dim=0, keepdim=True)
        log_q = log_q - torch.logsumexp(log_q, dim=1, keepdim=True)
    return log_q.exp()


def koleo(features_BD: Tensor) -> Tensor:
    """Kozachenko-Leonenko spread (Sablayrolles et al., arXiv 1806.03198): minus the mean log distance of each
    normalised feature to its nearest neighbour in the batch. 0 for a batch of one, which has no neighbour."""
    if len(features_BD) < 2:
        return wide(features_BD).sum() * 0
    unit = F.normalize(wide(features_BD), dim=-1)
    with torch.no_grad():
        likeness = unit @ unit.T
        likeness.fill_diagonal_(-2)
        nearest = likeness.argmax(dim=1)
    return -torch.log((unit - unit[nearest]).norm(dim=-1) + 1e-8).mean()
