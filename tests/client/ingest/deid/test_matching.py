"""Matching reports with studies, and the private index: the same answer in every order, nothing raw on the
disk.
"""

from __future__ import annotations

import contextlib
import csv
import random
import sqlite3
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.ingest.codes import Reason
from client.ingest.matching import match_reports, report_text
from client.ingest.pseudonym import Pseudonyms, parse_date
from client.ingest.reports import ReportFiles, ReportsConfig
from client.ingest.siteindex import IndexFileError, SiteIndex

SECRET = b"a fixed secret for the tests ..."
P = Pseudonyms(SECRET)

STUDIES = [  # patient, study UID, accession, date
    ("p1", "1.2.1", "ACC1", "20200101"),
    ("p1", "1.2.2", "ACC2", "20200601"),
    ("p2", "1.2.3", "SHARED", "20200101"),
    ("p3", "1.2.4", "SHARED", "20200101"),
    ("p4", "1.2.5", "TWICE", "20200101"),
    ("p4", "1.2.6", "TWICE", "20200102"),
    ("p5", "1.2.7", "ACC7", "20200101"),
    ("p6", "1.2.7", "ACC7", "20200101"),  # the same study under two patients
    ("p8", "1.2.8", "", ""),
]
REPORTS = [  # study UID, accession, text, date
    ("1.2.1", "", "by study UID", "2020-01-01"),
    ("", "ACC2", "by accession", "20200603"),
    ("9.9.9", "ACC1", "by study  UID", ""),  # unknown UID, so by accession; the same words as above
    ("", "SHARED", "whose?", ""),
    ("1.2.3", "SHARED", "the UID decides", "not a date"),
    ("", "TWICE", "which?", ""),
    ("1.2.7", "", "disputed study", ""),
    ("", "", "no key", ""),
    ("", "NOWHERE", "unmatched", ""),
    ("1.2.5", "", "first version", ""),
    ("1.2.5", "", "another version", ""),
    ("1.2.6", "", "main text", ""),
    ("1.2.6", "", "ADDENDUM 2: later", "2020-01-09"),
    ("1.2.6", "", "Addendum: sooner", "2020-01-05"),
    ("1.2.8", "", "undated study", "1999-01-01"),
    ("1.2.4", "", "too far", "2021-01-01"),
    ("1.2.2", "", "   ", ""),
]


def index_of(path: Path, studies: list[tuple[str, str, str, str]]) -> SiteIndex:
    index = SiteIndex(path, path.parent / "store")
    for patient, uid, accession, date in studies:
        key, day = P.patient(patient), parse_date(date)
        index.add_study(
            key,
            P.study(uid),
            P.accession(accession) if accession else None,
            None if day is None else P.day(key, day),
        )
    return index


def write(path: Path, reports: list[tuple[str, str, str, str]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["study_uid", "accession", "text", "date"])
        writer.writerows(reports)
    return path


def matched(folder: Path, studies, reports) -> tuple[dict[str, str | None], Counter, list, object]:
    noted: list[tuple[Reason, str]] = []
    files = ReportFiles(write(folder / "reports.csv", reports))
    with index_of(folder / "index.sqlite", studies) as index:
        summary = match_reports(files, index, P, lambda code, item: noted.append((code, item)))
        uids = {uid for _, uid, _, _ in studies}
        texts = {uid: report_text(files, index, P.study(uid)) for uid in uids}
        return texts, summary.problems, noted, summary


@given(st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_the_answer_does_not_depend_on_the_order(tmp_path_factory, rng: random.Random) -> None:
    studies, reports = list(STUDIES), list(REPORTS)
    rng.shuffle(studies)
    rng.shuffle(reports)
    texts, problems, noted, summary = matched(tmp_path_factory.mktemp("match"), studies, reports)
    assert texts.pop("1.2.1") in ("by study UID", "by study  UID")
    assert texts == {
        "1.2.2": "by accession",
        "1.2.3": "the UID decides",
        "1.2.4": None,
        "1.2.5": None,
        "1.2.6": "main text\n\nAddendum: sooner\n\nADDENDUM 2: later",
        "1.2.7": None,
        "1.2.8": "undated study",
    }
    assert problems == {
        Reason.SHARED_ACCESSION: 1,
        Reason.AMBIGUOUS_ACCESSION: 1,
        Reason.STUDY_TWO_PATIENTS: 1,
        Reason.REPORT_NO_KEY: 1,
        Reason.REPORT_UNMATCHED: 1,
        Reason.REPORT_CONFLICT: 1,
        Reason.REPORT_EMPTY: 1,
        Reason.REPORT_DATE: 1,
        Reason.STUDY_WITHOUT_REPORT: 2,  # 1.2.4 and 1.2.5; the disputed one is nobody's
    }
    assert Counter(code for code, _ in noted) == problems
    assert (summary.read, summary.matched, summary.duplicates, summary.addenda) == (16, 5, 1, 2)
    assert summary.unreadable_dates == 1


def test_matching_again_changes_nothing(tmp_path: Path) -> None:
    first = matched(tmp_path, STUDIES, REPORTS)[:2]
    assert matched(tmp_path, STUDIES, REPORTS)[:2] == first
    assert matched(tmp_path, [], [])[1] == {Reason.STUDY_WITHOUT_REPORT: 7}  # a report that was withdrawn is gone


def test_nothing_raw_is_in_the_index(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    studies = [("PATIENT-77", "1.2.840.77777", "ACCESSION77", "19770707")]
    files = ReportFiles(write(tmp_path / "r.csv", [("1.2.840.77777", "ACCESSION77", "SECRETTEXT", "1977-07-07")]))
    index = index_of(path, studies)
    match_reports(files, index, P, lambda code, item: None)
    index.commit()
    written = b"".join(p.read_bytes() for p in tmp_path.glob("index.sqlite*"))
    index.close()
    written += path.read_bytes()
    for raw in (b"PATIENT-77", b"1.2.840.77777", b"ACCESSION77", b"SECRETTEXT", b"19770707", b"1977-07-07"):
        assert raw not in written
    assert P.study("1.2.840.77777").encode() in written  # the search would have found it
    day = SiteIndex(path, tmp_path / "store").day_of(P.study("1.2.840.77777"))
    assert day is not None and day != parse_date("19770707").toordinal()


def test_the_index_is_private(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    with SiteIndex(path, tmp_path / "store") as index:
        index.add_study("a", "b", "c", 1)
        index.commit()
        for file in tmp_path.glob("index.sqlite*"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
    path.chmod(0o640)
    with pytest.raises(IndexFileError, match="chmod 600"):
        SiteIndex(path, tmp_path / "store")
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(IndexFileError, match="cannot be opened"):
        SiteIndex(link, tmp_path / "store")


def test_an_index_in_the_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store" / "images").mkdir(parents=True)
    for place in ("store/index", "store/images/../index", "store/images/index"):
        with pytest.raises(IndexFileError, match="inside the store"):
            SiteIndex(tmp_path / place, tmp_path / "store")


def test_one_ingest_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    code = (
        "import sys; from pathlib import Path; from client.ingest.siteindex import *\n"
        "try: SiteIndex(Path(sys.argv[1]), Path('elsewhere')).close(); print('opened')\n"
        "except IndexFileError as error: print(error)"
    )
    root = Path(__file__).resolve().parents[4]

    def other() -> str:
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, cwd=root, timeout=60)
        return done.stdout + done.stderr

    with SiteIndex(path, tmp_path / "store") as index:
        assert "another ingest" in other()
        index.add_study("a", "b", None, None)
        index.commit()
        assert "another ingest" in other()
    assert "opened" in other()


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\7" * 5000])
def test_a_damaged_index_is_said_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "index.sqlite"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(IndexFileError, match="damaged"):
        SiteIndex(path, tmp_path / "store")


def test_an_index_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    SiteIndex(path, tmp_path / "store").close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(IndexFileError, match="version 99"):
        SiteIndex(path, tmp_path / "store")


def test_what_was_committed_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    code = (
        "import os, sys; from pathlib import Path; from client.ingest.siteindex import SiteIndex\n"
        "index = SiteIndex(Path(sys.argv[1]), Path('elsewhere'))\n"
        "index.add_study('p', 'kept', 'a', 5); index.commit(); index.add_study('p', 'lost', 'b', 6)\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, path], cwd=Path(__file__).resolve().parents[4], timeout=60)
    with SiteIndex(path, tmp_path / "store") as index:
        assert index.patient_of("kept") == "p" and index.day_of("kept") == 5
        assert index.patient_of("lost") is None


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 3), st.none() | st.integers(-9, 9)),
        max_size=25,
    )
)
@settings(max_examples=20, deadline=None)
def test_the_index_against_plain_sets(tmp_path_factory, records) -> None:
    path = tmp_path_factory.mktemp("index") / "i"
    with SiteIndex(path, path.parent / "store") as index:
        for patient, study, accession, day in records:
            index.add_study(f"p{patient}", f"s{study}", f"a{accession}", day)
        owners = {f"s{s}": {f"p{p}" for p, t, _, _ in records if t == s} for _, s, _, _ in records}
        for study, patients in owners.items():
            expected = patients.pop() if len(patients) == 1 else Reason.STUDY_TWO_PATIENTS
            assert index.patient_of(study) == expected
            days = [d for _, s, _, d in records if f"s{s}" == study and d is not None]
            assert index.day_of(study) == min(days, default=None)
        disputed = sorted(f"s{s}" for s in range(5) if len({p for p, t, _, _ in records if t == s}) > 1)
        assert list(index.disputed()) == disputed
        for number in range(4):
            studies = {s for _, s, a, _ in records if a == number}
            patients = {p for p, s, _, _ in records if s in studies}
            if not studies:
                expected = Reason.REPORT_UNMATCHED
            elif len(patients) > 1:
                expected = Reason.SHARED_ACCESSION
            elif len(studies) > 1:
                expected = Reason.AMBIGUOUS_ACCESSION
            else:
                expected = f"s{studies.pop()}"
            assert index.study_by_accession(f"a{number}") == expected


def test_dates_are_compared_only_when_asked(tmp_path: Path) -> None:
    reports = [("1.2.1", "", "far away", "2025-01-01")]
    files = ReportFiles(write(tmp_path / "r.csv", reports), ReportsConfig(max_days_apart=None))
    with index_of(tmp_path / "i", STUDIES[:1]) as index:
        assert match_reports(files, index, P, lambda code, item: None).matched == 1
