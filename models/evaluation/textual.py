"""The shared protocol for text towers: answers to the questions in, results with intervals out.

A score is what one question earned, so every metric is a mean over questions, and patients are resampled as in the
protocol of images: each with all its questions. The bank that is searched is not resampled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from models.evaluation.bootstrap import FEWEST, WeightedMean, interval, mean_replicates, replicate
from models.evaluation.discrimination import discriminate
from models.evaluation.metrics import Floats
from models.evaluation.protocol import REPLICATES
from models.evaluation.questions import TASKS, WRONG, Choice, ReportQuestions, Search
from models.evaluation.results import MACRO, Result, hide
from models.evaluation.retrieval import KS, hits, merged
from models.language.canonical import canonical_keys

RECALLS = tuple(f"recall_at_{k}" for k in KS)
DIAGONAL = tuple(f"{name}_diagonal" for name in RECALLS)
MC4 = ("mc4", "mc4_ties", "mc4_margin")
BEATS = "mc4_beats"
COLUMNS = (*RECALLS, *DIAGONAL, *MC4, *(f"{BEATS}_{i}" for i in range(WRONG)))
"""What a question earns: searches the first two kinds, choices the others; NaN where a metric is not of its kind."""
METRICS = (*RECALLS, *DIAGONAL, *MC4, BEATS)
HEADLINES = ("recall_at_1", "mc4")

Encode = Callable[[Sequence[str], str | None], ArrayLike]
"""Texts and an instruction to vectors [n,d], row by row."""
Instructions = Callable[[str], tuple[str | None, str | None]]
"""Task (``abbreviated``, ``summary``) to the instruction of its queries and that of its documents."""


def no_instruction(task: str) -> tuple[None, None]:
    return None, None


def answers(encode: Encode, view: ReportQuestions, instructions: Instructions = no_instruction) -> Floats:
    """What each question of ``view`` earns, float32 [Q, len(COLUMNS)]. A choice is instructed as ``summary`` is."""
    encode = _Once(encode)
    out = np.full((len(view.tasks), len(COLUMNS)), np.nan, dtype=np.float32)
    for number, task in enumerate(TASKS):
        if len(view.searches[task].queries):
            out[view.tasks == number, : 2 * len(KS)] = _searched(encode, view.searches[task], *instructions(task))
    if len(view.choice.queries):
        out[view.tasks == len(TASKS), 2 * len(KS) :] = _chosen(encode, view.choice, *instructions("summary"))
    return out


class _Once:
    """Encodes each text once with each instruction: findings ask for their impression twice, and normal ones repeat."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._known: dict[tuple[str, str | None], np.ndarray] = {}

    def __call__(self, texts: Sequence[str], instruction: str | None) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if (text, instruction) not in self._known]
        if new:
            vectors = np.asarray(self._encode(new, instruction))
            self._known.update(zip(((text, instruction) for text in new), vectors))
        return np.stack([self._known[text, instruction] for text in texts])


def _searched(encode: _Once, search: Search, asked: str | None, given: str | None) -> Floats:
    queries, bank = encode(search.queries, asked), encode(search.answers, given)
    keys, first = search.keys, merged(canonical_keys(search.answers))
    alike = hits(queries, bank[first], keys, keys[first])
    diagonal = hits(queries, bank, np.arange(len(keys)))
    return np.concatenate([alike, diagonal], axis=1)


def _chosen(encode: _Once, choice: Choice, asked: str | None, given: str | None) -> Floats:
    flat = [text for wrong in choice.wrong for text in wrong]
    vectors = encode([*choice.right, *flat], given)
    right, wrong = vectors[: len(choice.right)], vectors[len(choice.right) :]
    found = discriminate(encode(choice.queries, asked), right, wrong.reshape(len(right), WRONG, -1))
    return np.column_stack([found.strict, found.shared, found.margin, found.beats])


def text_results(
    scores: ArrayLike,
    view: ReportQuestions,
    chosen: ArrayLike | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    min_cell: int = 0,
) -> list[Result]:
    """Every metric: retrieval for each task and its mean (``macro``), MC4 overall, and its pairs by error category.

    Args:
        scores: from :func:`answers`, [Q,K], or [M,Q,K] for the mean over M models.
        chosen: numbers of the questions that count, such as a site's; all if None.
        min_cell: a value from fewer patients than this is hidden.

    Raises:
        ValueError: scores that are not of these questions.
    """
    return _Scored(scores, view, chosen, seed, replicates, min_cell).results("")


def text_difference(
    a: ArrayLike,
    b: ArrayLike,
    view: ReportQuestions,
    chosen: ArrayLike | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    min_cell: int = 0,
) -> list[Result]:
    """``a`` minus ``b`` on the same questions and resamples; metrics are called ``<metric>_difference``."""
    mean = [np.asarray(x, np.float64).reshape(-1, *np.shape(x)[-2:]).mean(axis=0) for x in (a, b)]
    return _Scored(mean[0] - mean[1], view, chosen, seed, replicates, min_cell).results("_difference")


class _Scored:
    """Scores [Q,K] of the questions that count, and how they are resampled."""

    def __init__(
        self,
        scores: ArrayLike,
        view: ReportQuestions,
        chosen: ArrayLike | None,
        seed: int,
        replicates: int,
        min_cell: int,
    ) -> None:
        values = np.asarray(scores, dtype=np.float64)
        if values.shape[-2:] != (len(view.tasks), len(COLUMNS)) or values.ndim not in (2, 3):
            raise ValueError(f"scores {values.shape}: must be [{len(view.tasks)}, {len(COLUMNS)}], of these questions")
        self.values = values.mean(axis=0) if values.ndim == 3 else values
        self.view, self.seed, self.replicates, self.min_cell = view, seed, replicates, min_cell
        everything = np.arange(len(view.tasks))
        self.chosen = everything if chosen is None else np.asarray(chosen, dtype=np.int64)
        people, codes = np.unique(view.patients[self.chosen], return_inverse=True)
        self.people = len(people)
        self.person = np.full(len(view.tasks), -1)
        self.person[self.chosen] = codes

    def results(self, suffix: str) -> list[Result]:
        parts: list[tuple[str, list[tuple[str, np.ndarray, np.ndarray]]]] = []
        tasks = self.view.tasks[self.chosen]
        for column, metric in enumerate((*RECALLS, *DIAGONAL)):
            cells = []
            for number, task in enumerate(TASKS):
                questions = self.chosen[tasks == number]
                cells.append((task, questions, self.values[questions, column]))
            parts.append((metric, cells))
        questions = self.chosen[tasks == len(TASKS)]
        for column, metric in enumerate(MC4, len(RECALLS) + len(DIAGONAL)):
            parts.append((metric, [(MACRO, questions, self.values[questions, column])]))
        parts.append((BEATS, self._beats(questions)))
        rows: list[Result] = []
        for metric, cells in parts:
            rows += self._rows(metric + suffix, cells)
        return rows

    def _beats(self, questions: np.ndarray) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """Each pair of right and wrong by its error's category; a question has up to three of one category."""
        first = int((self.view.tasks < len(TASKS)).sum())
        kinds = np.array(self.view.choice.categories, dtype=object).reshape(-1, WRONG)[questions - first]
        values = self.values[questions, -WRONG:]
        found = []
        for kind in sorted(set(kinds.ravel().tolist())):
            row, column = np.nonzero(kinds == kind)
            found.append((kind, questions[row], values[row, column]))
        return found

    def _rows(self, metric: str, cells: list[tuple[str, np.ndarray, np.ndarray]]) -> list[Result]:
        shown, rows = [], []
        for name, questions, values in cells:
            persons = len(np.unique(self.person[questions]))
            row = Result(metric, name, None, n=len(values), positive_patients=persons, negative_patients=persons)
            if persons < self.min_cell:
                rows.append(hide(row, self.min_cell))
            elif not len(values):
                rows.append(Result(metric, name, None, n=0, reason="no question of this kind"))
            else:
                shown.append((row, WeightedMean(values, self.person[questions], self.people)))
                rows.append(row)
        drawn = replicate([mean for _, mean in shown], self.people, self.replicates, self.seed)
        points = [float(mean(np.ones((self.people, 1)))[0, 0]) for _, mean in shown]
        for (row, _), point, found in zip(shown, points, drawn):
            enough = (row.positive_patients or 0) >= FEWEST
            reason = None if enough else f"no interval: fewer than {FEWEST} patients"
            draws = found[0] if enough and found.size else np.empty(0)
            rows[rows.index(row)] = _filled(row, point, draws, reason)
        if MACRO in (name for name, *_ in cells):
            return rows
        return [*rows, self._macro(metric, shown, points, drawn, len(cells))]

    def _macro(self, metric: str, shown: list, points: list[float], drawn: list[Floats], asked: int) -> Result:
        if not shown:
            return Result(metric, MACRO, None, n=0, reason="no kind of question has a value")
        count = sum(row.n for row, _ in shown)
        draws = np.empty(0)
        if all(found.size for found in drawn) and self.people >= FEWEST:
            draws = mean_replicates(np.concatenate(drawn), np.array(points))
        reason = None if len(shown) == asked else f"mean of {len(shown)} of {asked}"
        return _filled(Result(metric, MACRO, None, n=count), float(np.mean(points)), draws, reason)


def _filled(row: Result, value: float, draws: Floats, reason: str | None) -> Result:
    found = interval(draws)
    told = "; ".join(part for part in (reason, found.reason) if part) or None
    return Result(
        row.metric,
        row.finding,
        value,
        found.low,
        found.high,
        n=row.n,
        positive_patients=row.positive_patients,
        negative_patients=row.negative_patients,
        reason=told,
        left_out=found.left_out,
    )
