"""Which tensors of which component travel.

By default all floating-point tensors of the components that the objective trains. ``keep`` holds back tensors by
pattern, so that a site keeps its own, e.g. batch-norm statistics as in FedBN (Li et al., arXiv 2102.07623):

    exchange: {keep: ["vision/*bn*", "vision/*downsample.1.*"], dtype: bfloat16}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Literal

from torch import Tensor

from models.config import ConfigError, config


@config
class Exchange:
    """components: what travels, None for what the objective trains. keep: glob patterns that stay at the site."""

    components: tuple[str, ...] | None = None
    keep: tuple[str, ...] = ()
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"

    def travelling(self, trains: Iterable[str]) -> tuple[str, ...]:
        """Components that travel for an objective that trains ``trains``.

        Raises:
            ConfigError: no component, or one that the objective does not train.
        """
        trains = tuple(trains)
        if self.components is None:
            return trains
        if not self.components:
            raise ConfigError(f"exchange.components: empty; leave the key away, or name {', '.join(trains)}")
        odd = sorted(set(self.components) - set(trains))
        if odd:
            raise ConfigError(
                f"exchange.components {', '.join(odd)}: the objective trains only {', '.join(trains)}; "
                f"what is not trained does not change and is not sent"
            )
        return self.components

    def select(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of ``state`` that travel.

        Raises:
            ConfigError: a pattern in ``keep`` that matches nothing, which is nearly always a spelling
                mistake, or patterns that together keep everything.
        """
        for pattern in self.keep:
            if not any(fnmatchcase(name, pattern) for name in state):
                raise ConfigError(
                    f"exchange.keep {pattern!r}: matches no tensor; names look like {next(iter(state))!r}"
                )
        selected = {n: t for n, t in state.items() if not any(fnmatchcase(n, p) for p in self.keep)}
        if not selected:
            raise ConfigError(f"exchange.keep {list(self.keep)}: keeps every tensor, nothing would travel")
        return selected
