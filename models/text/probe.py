"""Is attention really bidirectional, and padding really without influence?

A wrong switch is silent: setting ``is_causal`` on the attention modules alone leaves every model causal as soon as one
row is padded, and its vectors look like any others. So it is asked of the model itself, whenever one is built.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.config import ConfigError

_TOKENS = 6
_PADDED = 2
_TOLERANCE = 1e-3
"""Relative, for what padding may change: rounding of bfloat16 weights included on the float32 scale of states."""


@torch.no_grad()
def check_bidirectional(trunk: nn.Module, vocabulary: int) -> None:
    """Pass a batch with one padded row through ``trunk`` three times: as it is, with another last word in each row, and
    with other words under the padding.

    Raises:
        ConfigError: an earlier token does not see the last one, or sees padding.
    """
    was = [(module, module.training) for module in trunk.modules()]
    trunk.eval()
    try:
        seen, leaked = _measure(trunk, vocabulary)
    finally:
        for module, training in was:
            module.training = training
    name = type(trunk).__name__
    if not seen:
        raise ConfigError(
            f"{name}: attention is causal although is_causal is off; this family or version cannot be used"
        )
    if leaked:
        raise ConfigError(f"{name}: what stands under the padding changes the other tokens; use attention: eager")


def _measure(trunk: nn.Module, vocabulary: int) -> tuple[bool, bool]:
    device = next(trunk.parameters()).device
    ids = torch.arange(2 * _TOKENS, device=device).view(2, _TOKENS) * 7 % vocabulary
    mask = torch.ones_like(ids)
    mask[1, _TOKENS - _PADDED :] = 0
    ends = torch.tensor([_TOKENS - 1, _TOKENS - _PADDED - 1], device=device)
    rows = torch.arange(2, device=device)
    other = ids.clone()
    other[rows, ends] = (other[rows, ends] + vocabulary // 2) % vocabulary
    under = ids.clone()
    under[1, _TOKENS - _PADDED :] = (under[1, _TOKENS - _PADDED :] + vocabulary // 2) % vocabulary
    plain = _states(trunk, ids, mask)
    moved = (_states(trunk, other, mask) - plain)[:, : _TOKENS - _PADDED - 1]
    leaked = (_states(trunk, under, mask) - plain)[mask.bool()]
    # Same shapes, same kernels: a row whose earlier tokens do not see the change is the same to the bit.
    seen = bool((moved.abs().amax((1, 2)) > 0).all())
    return seen, bool(leaked.abs().max() > _TOLERANCE * plain.abs().max())


def _states(trunk: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    return trunk(input_ids=ids, attention_mask=mask).last_hidden_state.float()
