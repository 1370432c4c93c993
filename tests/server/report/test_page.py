"""The results page: whole, self-contained, safe, honest about what is missing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from server.report import render, write_report
from server.report.html import DASH, MINUS, count, signed, size, table, tag, three
from server.rundata import MACRO, read_run
from tests.server.invented import FINDINGS, SITES, InventedRun, invented  # noqa: F401

EVIL = "<img src=x onerror=alert(1)>'\"&"
VOID = {"meta", "link", "br"}


class Page(HTMLParser):
    """Checks that tags nest, and keeps ids, links, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.labels: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, name, attributes):
        self.tags.append(name)
        given = dict(attributes)
        self.ids += [given["id"]] if "id" in given else []
        self.labels += given.get("aria-labelledby", "").split()
        if name == "a":
            self.links.append(given["href"])
        for key in ("src", "srcset", "onerror", "onload", "style", "xlink:href"):
            assert key not in given
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.tags.append(name)

    def handle_endtag(self, name):
        assert self.open and self.open.pop() == name

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def test_the_page_is_whole_and_stands_alone(invented, tmp_path):  # noqa: F811
    html = render(read_run(invented))
    page = Page(html)
    assert len(html) < 500_000
    assert page.tags.count("svg") > 20 and page.tags.count("table") >= 8
    assert "script" not in page.tags and "img" not in page.tags and "iframe" not in page.tags
    assert not re.search(r"https?:|//[a-z]|url\(|@import", html)
    assert "default-src 'none'" in html
    assert [link[1:] for link in page.links if link[1:] not in page.ids] == []
    assert set(page.labels) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert "prefers-color-scheme:dark" in html and "@media print" in html
    assert "nan" not in page.text.lower().split()


def test_the_page_says_the_numbers(invented):  # noqa: F811
    run = read_run(invented)
    text = Page(render(run)).text
    macro = run.final("federated", "auroc", MACRO)
    band = f"(95 % interval {macro.low:.3f}{DASH}{macro.high:.3f})"
    assert f"macro AUROC of {macro.value:.3f} {band} on {macro.n} images" in text
    for finding in FINDINGS:
        cell = run.final("pooled", "auroc", finding)
        assert f"{cell.value:.3f}" in text
    for site in SITES:
        assert f"{run.final('local', 'auroc', MACRO, site).value:.3f}" in text
    for gain in run.gains:
        if gain.finding == MACRO:
            assert signed(gain.difference) in text
            assert gain.verdict in text
    assert "suppressed: fewer than 5" in render(run)
    assert "3 events: 1 timeout, 1 refused, 1 resumed." in text
    assert "vision/patch.weight holds 3 values that are not finite" in text
    assert "deadline_seconds: 600.0" in text and "torch" in text and "5f5f5f5f5f5f" in text
    assert "make run CONFIG=" in text
    assert "1 005 patients, 2 010 training images".replace(" ", " ") in text.replace("\u202f", " ")


def test_equal_folders_give_equal_pages_and_writing_is_whole(invented):  # noqa: F811
    target = write_report(invented)
    assert target == invented / "report.html"
    assert target.read_text(encoding="utf-8") == render(read_run(invented))
    assert not list(invented.glob("*.part"))


def test_charts_have_words(invented):  # noqa: F811
    html = render(read_run(invented))
    charts = re.findall(r'<svg class="chart"[^>]*>', html)
    assert len(charts) >= 4 + len(SITES)
    assert all('role="img"' in c and len(re.search(r'aria-label="([^"]*)"', c)[1]) > 20 for c in charts)


def _poisoned(value, key=""):
    """Every string replaced, except the words that have a meaning."""
    if isinstance(value, dict):
        return {k if k in MEANT_KEYS else EVIL + k: _poisoned(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_poisoned(v, key) for v in value]
    if isinstance(value, str) and key not in ("cohort", "metric", "started", "finished"):
        return value if value in ("central", MACRO) else EVIL + value
    return value


MEANT_KEYS = {
    *("phase", "round", "cohort", "site", "trained_on", "split", "metric", "finding", "value", "low", "high"),
    *("n", "positives", "reason", "run", "name", "started", "finished", "status", "config", "config_hash"),
    *("versions", "sites", "n_train", "n_validation", "error", "rounds", "seconds", "final", "gain", "local"),
    *("federated", "pooled", "difference", "time", "event", "code", "text", "command"),
}


def test_nothing_of_a_run_is_read_as_html(invented, tmp_path):  # noqa: F811
    for name in ("metrics.jsonl", "events.jsonl"):
        rows = [json.loads(text) for text in (invented / name).read_text().splitlines()]
        (tmp_path / name).write_text("".join(json.dumps(_poisoned(row)) + "\n" for row in rows))
    results = _poisoned(json.loads((invented / "results.json").read_text()))
    (tmp_path / "results.json").write_text(json.dumps({**results, "error": EVIL}))
    about = _poisoned(yaml.safe_load((invented / "run.yaml").read_text()))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**about, "command": EVIL}))
    html = render(read_run(tmp_path))
    page = Page(html)
    assert "img" not in page.tags
    assert page.text.count(EVIL) > 30


def test_a_failed_run_tells_why_first(tmp_path):
    run = InventedRun(tmp_path)
    run.describe("failed")
    run.append("events.jsonl", [{"round": 1, "event": "quorum", "code": "below_quorum", "text": "1 of 4"}])
    run.finish("failed", [], [], error="RunFailed: 3 rounds in a row missed the quorum")
    page = Page(render(read_run(tmp_path)))
    assert "This run failed." in page.text
    assert "RunFailed: 3 rounds in a row missed the quorum" in page.text
    assert page.links[0] == "#events"
    assert "No federated score was recorded" in page.text
    assert "Findings: No finding was scored." in page.text
    assert "Who gained, who lost: No site has both" in page.text


def test_an_empty_folder_and_a_running_run_have_a_page(tmp_path):
    page = Page(render(read_run(tmp_path)))
    assert "unknown" in page.text and "Not read: run.yaml: missing." in page.text
    run = InventedRun(tmp_path)
    run.describe("running")
    run.append("metrics.jsonl", [x for x in run.round(1) if x["cohort"] == "federated"])
    text = Page(render(read_run(tmp_path))).text
    assert "After 1 round over 4 sites" in text
    assert "own models average" not in text and "pooled training" not in text


def test_only_losses(tmp_path):
    run = InventedRun(tmp_path)
    run.describe("running")
    run.append("metrics.jsonl", run.training(1) + run.training(2))
    text = Page(render(read_run(tmp_path))).text
    assert (
        "Training loss diagnosis, mean over sites; thin: each site" in text
        and "No macro AUROC was recorded in any round." in text
    )


def test_scores_that_could_not_be_computed_say_why(tmp_path):
    rows = [
        {
            "phase": "a",
            "round": 1,
            "cohort": "federated",
            "site": "central",
            "metric": "auroc",
            "finding": f,
            "value": None,
            "reason": "no positive",
        }
        for f in ("Edema", MACRO)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    text = Page(render(read_run(tmp_path))).text
    assert "No AUROC could be computed: no positive." in text


def test_confounding_is_pointed_out(tmp_path):
    def page(inside: float) -> str:
        rows = [
            {
                "phase": "a",
                "round": 1,
                "cohort": "federated",
                "site": "central",
                "metric": m,
                "finding": MACRO,
                "value": v,
            }
            for m, v in (("auroc", 0.9), ("auroc_within_site", inside))
        ]
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        return Page(render(read_run(tmp_path))).text

    assert "0.150 lower. Part of the figure" in page(0.75)
    assert "lower" not in page(0.89)


def test_many_sites_and_rounds_stay_small(tmp_path):
    sites = [f"site {i}" for i in range(40)]
    rows = [
        {
            "phase": "a",
            "round": r,
            "cohort": c,
            "site": s,
            "metric": m,
            "finding": f,
            "value": 0.5 + r / 400,
            "low": 0.4,
            "high": 0.9,
            "trained_on": s if c == "local" else None,
        }
        for r in range(1, 61)
        for c in ("federated", "local", "pooled")
        for s in ["central", *sites]
        for m, f in (("auroc", MACRO), ("update_norm", None), ("seconds", None), ("diagnosis_loss", None))
    ]
    rows += [
        {
            "phase": "a",
            "round": 60,
            "cohort": c,
            "site": s,
            "metric": "auroc",
            "finding": f"Finding {i}",
            "value": 0.7,
        }
        for c in ("federated", "local")
        for s in ["central", *sites]
        for i in range(14)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    events = [{"event": "refused", "site": s, "round": r, "text": "x" * 60} for s in sites for r in range(60)]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"sites": [{"name": s, "n_train": 9} for s in sites]}))
    html = render(read_run(tmp_path))
    Page(html)
    assert len(html.encode()) < 500_000
    assert "28 further sites stand in the table of sites." in html
    assert "The last 200 are listed" in html


def test_no_run_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_report(Path(tmp_path / "none"))


def test_numbers_as_words():
    assert [three(x) for x in (0.12345, -0.5, None)] == ["0.123", f"{MINUS}0.500", DASH]
    assert [signed(x) for x in (0.0312, -0.0004, -0.02, None)] == ["+0.031", "0.000", f"{MINUS}0.020", DASH]
    assert [size(x) for x in (0, 999, 22_400_000, 150_000_000, 2.15e9, None)] == [
        "0 B", "999 B", "22.4 MB", "150 MB", "2.1 GB", DASH,
    ]  # fmt: skip
    assert count(1234567).replace("\u202f", " ") == "1 234 567"


def test_text_that_looks_like_a_cell_is_text():
    made = table(["a", "b"], [["x", "<td>y</td>"], ["<td", tag("td", "<z>", kind="cell")]], "c")
    assert "<td>&lt;td&gt;y&lt;/td&gt;</td>" in made
    assert '<td class="cell">&lt;z&gt;</td>' in made
