"""How far an encoder still finds a report as its text gets worse: R@1 against the level of noise.

- ``typing``: each letter, with the chance ``level``, is dropped, doubled, exchanged with the next one or mistyped.
- ``abbreviation``: each phrase that has a short form is written so with the chance ``level``.

The bank holds the texts as they are; the query is a text made worse. At level 0 both are one text and R@1 is 1. Noise
is drawn anew for every text from its own words and the seed, so that the order of texts does not matter.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike

from models.evaluation.bootstrap import FEWEST, WeightedMean, interval, replicate
from models.evaluation.protocol import REPLICATES
from models.evaluation.results import Result
from models.evaluation.retrieval import hits, merged
from models.evaluation.textual import Encode
from models.language.canonical import canonical, canonical_keys
from models.language.rewriting import SORTS, abbreviate, expand
from models.randomness import stream_seed

Noise = Literal["typing", "abbreviation"]
NOISES: tuple[Noise, ...] = get_args(Noise)
LEVELS = {"typing": (0.0, 0.02, 0.05, 0.1, 0.2, 0.4), "abbreviation": (0.0, 0.25, 0.5, 0.75, 1.0)}
METRIC = "noisy_recall_at_1"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Point(NamedTuple):
    """A curve's value at one level."""

    noise: Noise
    level: float
    result: Result


def noisy(text: str, noise: Noise, level: float, seed: int = 0) -> str:
    """``text`` made worse; the same text, level and seed, the same result.

    Raises:
        ValueError: an unknown noise, or a level outside [0, 1].
    """
    if noise not in NOISES or not 0 <= level <= 1:
        raise ValueError(f"noise {noise!r} at {level}: one of {', '.join(NOISES)}, at a level in [0, 1]")
    if level == 0:
        return text
    rng = random.Random(stream_seed(seed, noise, canonical(text)))
    if noise == "abbreviation":
        return abbreviate(text, SORTS, level, rng)
    out: list[str] = []
    place = 0
    while place < len(text):
        letter = text[place]
        place += 1
        if not letter.isalpha() or rng.random() >= level:
            out.append(letter)
            continue
        kind = rng.choice(("drop", "double", "swap", "other"))
        if kind == "double":
            out += (letter, letter)
        elif kind == "swap" and place < len(text):
            out += (text[place], letter)
            place += 1
        elif kind != "drop":
            out.append(rng.choice(_LETTERS))
    return "".join(out)


def curve(
    encode: Encode,
    texts: Sequence[str],
    patients: ArrayLike,
    noise: Noise,
    levels: Sequence[float] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> list[Point]:
    """R@1 of each text made worse, in the bank of all as they are (copies merged), at each level, with patient intervals.

    For ``abbreviation`` the bank holds the texts written out.
    """
    clean = [expand(text) for text in texts] if noise == "abbreviation" else list(texts)
    keys = canonical_keys(clean)
    first = merged(keys)
    bank = np.asarray(encode(clean, None))[first] if clean else np.zeros((0, 1))
    people, rows = np.unique(np.asarray(patients), return_inverse=True)
    points = []
    for level in LEVELS[noise] if levels is None else levels:
        worse = [noisy(text, noise, level, seed) for text in clean]
        # An empty text is nothing to encode; noise rarely leaves one of a word or two.
        worse = [new if new.strip() else old for new, old in zip(worse, clean)]
        values = hits(encode(worse, None), bank, keys, keys[first], (1,))[:, 0] if clean else np.zeros(0)
        points.append(Point(noise, level, _result(values, rows, len(people), replicates, seed)))
    return points


def _result(values: np.ndarray, rows: np.ndarray, people: int, replicates: int, seed: int) -> Result:
    if not len(values):
        return Result(METRIC, None, None, n=0, reason="no report")
    mean = WeightedMean(values, rows, people)
    drawn = replicate([mean], people, replicates if people >= FEWEST else 0, seed)[0]
    found = interval(drawn[0] if drawn.size else np.empty(0))
    return Result(METRIC, None, float(values.mean()), found.low, found.high, n=len(values), reason=found.reason)
