"""Sections and labels of reports: how many a second on one core, and how right.

    python tests/benchmarks/bench_language.py                speed; against negspacy where it is installed
    python tests/benchmarks/bench_language.py --accuracy     human coding, NegEx kit and phantom truth as well

The reports are the real ones beside the checkout, else phantom ones. Every report is different text; nothing is
remembered from one to the next but the folding of single words. CPU time of one thread, best of three.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from models.language import mentions
from models.language.labeller import Labelling, label_report
from models.language.polarity import polarity
from models.language.sections import split_report
from models.studies.schema import CHEXPERT, Label
from tests.models.language.openi import SCORED, counts, f1, intervals, read_csv, reports, scores

DEV = Path(__file__).resolve().parents[3] / "shared" / "data" / "dev"


def texts() -> tuple[str, list[str]]:
    """Where the reports come from, and whole reports with headings."""
    if DEV.is_dir():
        rows = [row for row in reports(DEV) if row["findings"] or row["impression"]]
        return "Open-i", [
            f"INDICATION: {r['indication']}\nFINDINGS: {r['findings']}\nIMPRESSION: {r['impression']}" for r in rows
        ]
    return "phantom", [report.text for _, report in phantom(60)]


def phantom(patients_a_house: int) -> list:
    """(film, report) of every house of the phantom."""
    from client.ingest.phantom.patients import patients
    from client.ingest.phantom.people import invent_hospital, invent_person
    from client.ingest.phantom.reports import write_report
    from client.ingest.phantom.style import STYLES

    pairs = []
    for name, style in STYLES.items():
        rng = np.random.default_rng(23)
        hospital, before = invent_hospital(name, rng), None
        for film in patients(style, patients_a_house, 17, 32):
            if film.image:
                continue
            if film.study == 0:
                person, before = invent_person(1, film.age, rng), None
            date = person.first_day + datetime.timedelta(days=film.day)
            pairs.append((film, write_report(film, before, date, "AB1", person, hospital, style.dictation, rng)))
            before = date
    return pairs


def rate(function: Callable[[str], object], items: Sequence[str], repeats: int = 3) -> float:
    """Items a second of CPU time, best of ``repeats``."""
    best = float("inf")
    for _ in range(repeats):
        begun = time.process_time()
        for item in items:
            function(item)
        best = min(best, time.process_time() - begun)
    return len(items) / best


def speed() -> None:
    where, items = texts()
    words = statistics.mean(len(item.split()) for item in items)
    begun = time.process_time()
    label_report(items[0])
    print(
        f"{len(items)} {where} reports, {words:.0f} words each; word lists read in {time.process_time() - begun:.2f} s"
    )
    whole = rate(label_report, items)
    print(f"sections and labels       {whole:8.0f} reports/s of one core")
    print(f"sections alone            {rate(split_report, items):8.0f}")
    parts = [split_report(item) for item in items]
    alone = rate(label_report, parts)
    print(f"labels alone              {alone:8.0f}")
    try:
        from tests.reference.negspacy_labeller import Engine
    except ImportError:
        print("negspacy is not installed: no ratio (pip install 'negspacy>=1.1,<2')")
        return
    own = mentions.Scopes
    for name, engine in (("its shipped terms", Engine(shipped=True)), ("our lists", Engine())):
        mentions.Scopes = engine.scopes()  # type: ignore[misc]
        some = items[::4]
        theirs = rate(label_report, some, 2)
        theirs_alone = rate(label_report, parts[::4], 2)
        mentions.Scopes = own  # type: ignore[misc]
        print(
            f"with negspacy, {name:18s} {theirs:8.0f} reports/s, {whole / theirs:.1f} times slower "
            f"(labels alone {theirs_alone:.0f}, {alone / theirs_alone:.1f} times)"
        )


def accuracy() -> None:
    if DEV.is_dir():
        rows = reports(DEV)
        table = counts(rows, label_report)
        micro, macro = scores(table)
        (a, b), (c, d) = intervals(table)
        print(f"\nOpen-i, human MeSH coding, present or not: {len(table)} reports, {len(SCORED)} classes")
        print(f"micro F1 {micro:.3f} [{a:.3f}, {b:.3f}]   macro F1 {macro:.3f} [{c:.3f}, {d:.3f}]")
        for name, (tp, fp, fn), value in zip(SCORED, table.sum(0), f1(table.sum(0))):
            precision, recall = tp / max(tp + fp, 1), tp / max(tp + fn, 1)
            print(f"  {name:20s} F1 {value:.3f}   n {tp + fn:4d}   precision {precision:.3f}   recall {recall:.3f}")
        pairs = []
        for row in read_csv(DEV / "reports" / "negex_testkit.csv"):
            try:
                denied = polarity(row["sentence"], row["concept"]) is Label.ABSENT
            except ValueError:
                denied = False
            pairs.append((denied, row["negation"] == "Negated"))
        kit = np.array([(a and b, a and not b, b and not a) for a, b in pairs], dtype=np.int64)[:, None, :]
        (a, b), _ = intervals(kit)
        print(f"NegEx kit: negation F1 {scores(kit)[0]:.3f} [{a:.3f}, {b:.3f}], {len(kit)} sentences")
    cells = wrong = 0
    pairs = phantom(40)
    for _, report in pairs:
        labels = label_report(report.text, Labelling(parents=True))
        cells += 13
        wrong += sum(labels[name] != report.mentions[name] for name in CHEXPERT[1:])
    print(f"phantom truth: {cells - wrong} of {cells} cells equal, {len(pairs)} reports")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accuracy", action="store_true", help="score the labels as well")
    options = parser.parse_args()
    speed()
    if options.accuracy:
        accuracy()
