"""The nearest report: against a literal loop and sklearn, chance, and scorers that are missing."""

from __future__ import annotations

import math
import sys
import types

import numpy as np
import pytest
from sklearn.metrics import f1_score

from models.evaluation.clinical import NAMES, MissingScorer, scorer
from models.evaluation.nearest import LABEL_F1, label_counts, nearest, nearest_results
from models.evaluation.retrieval import unit
from models.language.labeller import label_text
from models.studies.schema import CHEXPERT, Label

TEXTS = [
    "Small left pleural effusion.",
    "Small right pleural effusion. Cardiomegaly.",
    "No acute disease.",
    "Normal chest.",
    "Large right pneumothorax.",
    "Cardiomegaly.",
    "small LEFT pleural  effusion.",
    "Right lower lobe pneumonia.",
]


def present(text: str) -> list[bool]:
    labels = label_text(text)
    return [labels[name] is Label.PRESENT for name in CHEXPERT]


def test_it_is_the_loop():
    rng = np.random.default_rng(0)
    vectors, keys = rng.normal(size=(60, 5)), rng.integers(0, 25, 60)
    found = nearest(vectors, keys)
    rows = unit(vectors).tolist()
    for i, row in enumerate(rows):
        others = [
            (math.fsum(a * b for a, b in zip(row, other)), j) for j, other in enumerate(rows) if keys[j] != keys[i]
        ]
        assert found[i] == max(others)[1]


def test_copies_are_no_neighbours():
    assert nearest(np.ones((3, 2)), [4, 4, 4]).tolist() == [-1, -1, -1]
    assert nearest(np.eye(2), [1, 2]).tolist() == [1, 0]
    assert nearest(np.zeros((0, 2)), []).tolist() == []
    with pytest.raises(ValueError, match="keys"):
        nearest(np.eye(2), [1])


def test_label_f1_is_sklearns():
    rng = np.random.default_rng(1)
    vectors, patients = rng.normal(size=(len(TEXTS), 4)), np.arange(len(TEXTS))
    row = nearest_results(vectors, TEXTS, patients, replicates=300)[0]
    of = nearest(vectors, [0, 1, 2, 3, 4, 5, 0, 6])
    truth, guess = [present(t) for t in TEXTS], [present(TEXTS[i]) for i in of]
    assert row.metric == LABEL_F1 and row.n == len(TEXTS)
    assert row.value == pytest.approx(f1_score(truth, guess, average="micro", zero_division=0))


def test_counts_are_of_classes_present():
    found = label_counts(["Small effusion. No pneumothorax."], ["Pneumothorax. Cardiomegaly. Effusion."])
    assert found.tolist() == [[1, 2, 0]]
    assert label_counts([], []).shape == (0, 3)


def test_labels_as_vectors_beat_random_ones():
    texts = [f"{text} Film {n}." for n in range(12) for text in TEXTS]
    patients = np.arange(len(texts))
    known = np.array([present(text) for text in texts], dtype=float) + 0.01
    good = nearest_results(known, texts, patients, replicates=200)[0]
    poor = nearest_results(np.random.default_rng(2).normal(size=(len(texts), 30)), texts, patients, replicates=200)[0]
    assert good.value == 1 and poor.value < 0.5 and poor.low < poor.value < poor.high


def test_few_patients_are_hidden_and_without_interval():
    vectors = np.eye(len(TEXTS))
    two = [0, 0, 0, 0, 1, 1, 1, 1]
    hidden = nearest_results(vectors, TEXTS, two, min_cell=5)[0]
    assert hidden.value is None and hidden.n is None and "fewer than 5" in hidden.reason
    shown = nearest_results(vectors, TEXTS, two)[0]
    assert shown.value is not None and shown.low is None


def test_a_plug_in_is_a_mean_over_pairs():
    patients = np.arange(len(TEXTS))
    seen = []

    def length(texts, references):
        seen.append((tuple(texts), tuple(references)))
        return [len(a) / 100 for a in texts]

    rows = nearest_results(np.eye(len(TEXTS)), TEXTS, patients, {"length": length}, replicates=0)
    assert [row.metric for row in rows] == [LABEL_F1, "nearest_length"]
    assert rows[1].value == pytest.approx(np.mean([len(t) for t in TEXTS]) / 100)
    assert all(a != b for a, b in zip(*seen[0]))
    with pytest.raises(ValueError, match="scorer 'bad'"):
        nearest_results(np.eye(len(TEXTS)), TEXTS, patients, {"bad": lambda a, b: [1.0]})


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_is_named_with_its_cure(name, monkeypatch):
    for module in ("radgraph", "RaTEScore", "green_score", "f1chexbert"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingScorer, match=rf"'{name}': package .* is missing; pip install"):
        scorer(name)


def test_missing_weights_are_named(monkeypatch):
    import os

    def cold(*_, **__):
        assert os.environ["HF_HUB_OFFLINE"] == "1"
        raise OSError("no such file: /home/somebody/.cache/secret")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setitem(sys.modules, "radgraph", types.SimpleNamespace(F1RadGraph=cold))
    with pytest.raises(MissingScorer, match=r"weights could not be loaded \(OSError\); it needs the RadGraph-XL"):
        scorer("radgraph")
    assert "HF_HUB_OFFLINE" not in os.environ


def test_an_unknown_scorer_is_refused():
    with pytest.raises(ValueError, match="'bleu': one of radgraph, ratescore, green, chexbert"):
        scorer("bleu")


def test_scorers_are_called_as_their_packages_want(monkeypatch):
    class Rad:
        def __init__(self, reward_level):
            assert reward_level == "partial"

        def __call__(self, hyps, refs):
            return 0.5, [float(h == r) for h, r in zip(hyps, refs)], None, None

    class Rate:
        def compute_score(self, candidates, references):
            return [0.25] * len(candidates)

    class Green:
        def __init__(self, model, output_dir):
            pass

        def __call__(self, refs, hyps):
            return 0.0, 0.0, [0.75] * len(refs), "", None

    class Bert:
        def get_label(self, text):
            return [1, 0, 1] if "effusion" in text else [1, 0, 0]

    monkeypatch.setitem(sys.modules, "radgraph", types.SimpleNamespace(F1RadGraph=Rad))
    monkeypatch.setitem(sys.modules, "RaTEScore", types.SimpleNamespace(RaTEScore=Rate))
    monkeypatch.setitem(sys.modules, "green_score", types.SimpleNamespace(GREEN=Green))
    monkeypatch.setitem(sys.modules, "f1chexbert", types.SimpleNamespace(F1CheXbert=Bert))
    a, b = ["effusion", "x"], ["x", "x"]
    assert list(scorer("radgraph")(a, b)) == [0.0, 1.0]
    assert list(scorer("ratescore")(a, b)) == [0.25, 0.25] and list(scorer("green")(a, b)) == [0.75, 0.75]
    assert scorer("chexbert")(a, b) == pytest.approx([2 / 3, 1.0])
