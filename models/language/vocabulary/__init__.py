"""The word lists of radiology English, and how they are written.

Every list is a YAML beside this file, with a header that says what it holds. A phrase in a list is a small
pattern of words:

    "pleural|parapneumonic [free] fluid|effusion"

``a|b`` are alternatives for one place, ``[a|b]`` may be missing, ``_`` is a blank inside an alternative. Case
and inflection do not matter: what :mod:`models.language.tokens` folds together is one word here too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from models.config import ConfigError, read_yaml

_FOLDER = Path(__file__).parent
_MOST = 20_000
"""Most phrases one pattern may stand for; more is a slip of the pen, not a pattern."""


@cache
def load(name: str) -> dict[str, Any]:
    """The word list ``name``, read once. Do not change what it returns.

    Raises:
        ConfigError: if there is no such list, or it is not valid YAML.
    """
    return read_yaml(_FOLDER / f"{name}.yaml")


def names() -> list[str]:
    """Names of all lists that are shipped."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def expand(pattern: str) -> Iterator[tuple[str, ...]]:
    """Every phrase that ``pattern`` stands for, as words in lower case.

    Raises:
        ConfigError: if the pattern is empty, may match nothing, or stands for too many phrases.
    """
    places = [_place(part, pattern) for part in pattern.lower().split()]
    count = 1
    for options in places:
        count *= len(options)
    if not places or count > _MOST:
        raise ConfigError(
            f"word list: pattern {pattern!r} stands for {count if places else 0} phrases; allowed: 1 to {_MOST}"
        )
    for choice in itertools.product(*places):
        words = tuple(itertools.chain.from_iterable(choice))
        if not words:
            raise ConfigError(f"word list: pattern {pattern!r} may be left out as a whole; one place must stand")
        yield words


def _place(part: str, pattern: str) -> list[tuple[str, ...]]:
    optional = part.startswith("[")
    if optional != part.endswith("]"):
        raise ConfigError(
            f"word list: pattern {pattern!r}: the bracket in {part!r} is open; write [word] without blanks"
        )
    options = [tuple(word for word in option.split("_") if word) for option in part.strip("[]").split("|")]
    if not all(options):
        raise ConfigError(
            f"word list: pattern {pattern!r}: an alternative in {part!r} is empty; use [word] for what may be missing"
        )
    return [*options, ()] if optional else options


def phrases(patterns: Iterable[str]) -> set[tuple[str, ...]]:
    """Every phrase of several patterns."""
    return {words for pattern in patterns for words in expand(pattern)}
