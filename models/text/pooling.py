"""From token states to one vector a text.

Shape letters: B texts, T tokens, D width, L latents, N tokens that count (of all texts together).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def mean_pool(states_BTD: Tensor, span_BT: Tensor) -> Tensor:
    """Mean over the tokens in the span, [B,D] float32; NaN for a text without any, which ``Tokens.rows`` refuses."""
    weight_BT = span_BT.to(torch.float32)
    sum_BD = torch.where(span_BT.bool()[..., None], states_BTD.float(), 0).sum(1)
    return sum_BD / weight_BT.sum(1, keepdim=True)


def first_pool(states_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """State of the first token that is no padding (a BERT's class token), [B,D] float32; either padding side."""
    return _pick(states_BTD, mask_BT.int().argmax(1))


def last_pool(states_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """State of the last token that is no padding, [B,D] float32; either padding side."""
    return _pick(states_BTD, mask_BT.shape[1] - 1 - mask_BT.int().flip(1).argmax(1))


def _pick(states_BTD: Tensor, at_B: Tensor) -> Tensor:
    return states_BTD[torch.arange(len(at_B), device=at_B.device), at_B].float()


class LatentAttention(nn.Module):
    """Latent-attention pooling as released with LLM2VEC4CXR (after NV-Embed, arXiv 2405.17428), batched.

    Each token asks L learnt latents by multi-head attention, then passes an MLP; the mean of that over the span is the
    vector. No residual, no norm. A token's answer depends on no other token, so all that count are computed together,
    and padding not at all. Parameter names are the released ones.
    """

    def __init__(self, width: int, latents: int = 512, heads: int = 8) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.multihead_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, states_BTD: Tensor, span_BT: Tensor) -> Tensor:
        """[B,D] float32; NaN for a text without a token in its span."""
        span_BT = span_BT.bool()
        tokens_1ND = states_BTD[span_BT].to(self.latents.dtype)[None]
        latents_1LD = self.latents[None]
        seen_1ND, _ = self.multihead_attn(tokens_1ND, latents_1LD, latents_1LD, need_weights=False)
        answers_ND = self.mlp(seen_1ND)[0].float()
        # Put back where they came from rather than index_add: its sums have no fixed order on an accelerator.
        answers_BTD = answers_ND.new_zeros(*span_BT.shape, answers_ND.shape[-1])
        answers_BTD[span_BT] = answers_ND
        return mean_pool(answers_BTD, span_BT)
