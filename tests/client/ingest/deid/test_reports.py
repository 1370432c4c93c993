"""Reading reports: encodings, broken tables, folders; every report comes back by its place."""

from __future__ import annotations

import csv
import io
import random
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.ingest.codes import Reason
from client.ingest.encodings import decode, wide_encoding
from client.ingest.refusal import Refusal
from client.ingest.reports import Place, Problem, Report, ReportFiles, ReportsConfig
from models.config import ConfigError, build

TEXT = "Größe normal, kein Erguß \u2013 “clear”.\nImpression: naïve café."
PLAIN = "Größe normal, naïve café."


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_encodings_that_are_tried(codec: str) -> None:
    marks = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}
    assert decode(marks.get(codec, b"") + TEXT.encode(codec)) == TEXT


def test_utf16_without_a_mark_is_seen_by_its_zeros() -> None:
    for codec in ("utf-16-le", "utf-16-be"):
        assert decode(TEXT.encode(codec)) == TEXT
        assert wide_encoding(TEXT.encode(codec)) == codec


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("両側肺野に異常陰影を認めない。", "shift_jis"),
        ("双肺清晰未见异常。心影正常。", "gb18030"),
        ("Лёгкие чистые, без очаговых изменений.", "koi8-r"),
        ("Лёгкие чистые, без очаговых изменений.", "cp1251"),
        ("폐에 이상 소견이 없습니다.", "euc-kr"),
        ("\u039f\u03b9 πνεύμονες είναι καθαροί.", "cp1253"),
    ],
)
def test_an_encoding_that_is_not_tried_is_refused_and_can_be_named(text: str, codec: str) -> None:
    with pytest.raises(Refusal, match="report_encoding"):
        decode(text.encode(codec))
    assert decode(text.encode(codec), codec) == text


@pytest.mark.parametrize(
    "raw",
    [
        "Größe".encode() + b"\xff",  # UTF-8 with one broken byte: its pairs betray it
        b"clear\x00lungs",
        b"clear\x81lungs",
        b"\xff\xfea",  # half a character
        b"\x89PNG\r\n\x1a\n",
        bytes(range(256)),
    ],
)
def test_damaged_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(Refusal, match="report_encoding"):
        decode(raw)


def test_latin1_has_to_be_named_and_holds_no_controls() -> None:
    assert decode(PLAIN.encode("latin-1"), "latin-1") == PLAIN
    with pytest.raises(Refusal):
        decode("“quoted”".encode("cp1252"), "latin-1")


@given(st.binary(max_size=200))
@settings(max_examples=150)
def test_any_bytes_give_text_or_a_code(raw: bytes) -> None:
    try:
        assert "\0" not in decode(raw)
    except Refusal as refusal:
        assert refusal.reason is Reason.REPORT_ENCODING


def table(rows: list[list[str]], codec: str = "utf-8", end: str = "\r\n", delimiter: str = ",") -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(rows)
    return out.getvalue().encode(codec)


HEADER = ["Accession", "StudyInstanceUID", "Report", "Date"]
ROWS = [
    ["A1", "1.2.3", 'Größe normal.\nClear, "quoted".', "2020-01-02"],
    ["A2", "", "Zweite Zeile;\r\nmit Komma, Semikolon.", ""],
    ["", "1.2.4", "Third.", "20200103"],
]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252", "latin-1"])
def test_every_report_comes_back_by_its_place(tmp_path: Path, codec: str, end: str, delimiter: str) -> None:
    path = tmp_path / "reports.csv"
    mark = b"\xfe\xff" if codec == "utf-16-be" else b""
    path.write_bytes(mark + table([HEADER, *ROWS], codec, end, delimiter))
    files = ReportFiles(path)
    read = list(files)
    assert all(isinstance(r, Report) for r in read), read
    assert [[r.accession, r.study_uid, r.text, r.date] for r in read] == ROWS
    for report in reversed(read):
        assert files.text(report.place) == report.text


CELLS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff\ufeff"),
    min_size=1,
    max_size=30,
)
BODY = st.lists(CELLS | st.sampled_from(['"', ",", "\n", "\r\n", "\r", "a", ";"]), min_size=1, max_size=8).map("".join)


@given(
    st.lists(st.tuples(st.from_regex(r"[A-Z0-9]{1,8}", fullmatch=True), BODY.filter(str.strip)), max_size=8),
    st.sampled_from(["\r\n", "\n", "\r"]),
    st.sampled_from(["utf-8", "utf-16"]),
)
@settings(max_examples=60, deadline=None)
def test_any_table_comes_back(tmp_path_factory, rows, end: str, codec: str) -> None:
    path = tmp_path_factory.mktemp("reports") / "r.csv"
    path.write_bytes(table([["accession", "text"], *map(list, rows)], codec, end))
    files = ReportFiles(path)
    read = list(files)
    assert [(r.accession, r.text) for r in read] == [(a, t) for a, t in rows]
    assert all(files.text(r.place) == r.text for r in read)


def test_one_bad_row_costs_one_row(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    good = table([["A9", "fine"]])
    path.write_bytes(
        b"accession,text\r\n"
        + good
        + b"A1,too,many\r\n"
        + b"A2\r\n"
        + b'A3,"broken"quote\r\n'
        + good
        + "A4,Größe".encode()
        + b"\xff\r\n"
        + b"A5,\r\n"
        + b"\r\n"
        + b"A6,"
        + b"x" * 60
        + b"\r\n"
        + "A7,Größe in cp1252\r\n".encode("cp1252")
        + b"A8,nul\x00\r\n"
        + good
    )
    read = list(ReportFiles(path, ReportsConfig(max_chars=50)))
    assert [r.accession for r in read if isinstance(r, Report)] == ["A9", "A9", "A7", "A9"]
    assert [r.reason for r in read if isinstance(r, Problem)] == [
        Reason.REPORT_MALFORMED,
        Reason.REPORT_MALFORMED,
        Reason.REPORT_MALFORMED,
        Reason.REPORT_ENCODING,
        Reason.REPORT_EMPTY,
        Reason.TOO_LARGE,
        Reason.REPORT_ENCODING,
    ]


def test_a_quote_that_never_closes_does_not_swallow_the_file(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(b'accession,text\r\nA1,"never closed\r\n' + b"".join(b"B%d,fine\r\n" % n for n in range(5000)))
    read = list(ReportFiles(path, ReportsConfig(max_chars=1000)))
    assert read[0].reason is Reason.REPORT_MALFORMED
    assert sum(isinstance(r, Report) for r in read) > 4000


def test_a_line_without_end_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    with open(path, "wb") as file:
        file.write(b"accession,text\r\nA1,")
        for _ in range(64):
            file.write(b"x" * 1_000_000)
        file.write(b"\r\nA2,fine\r\n")
    tracemalloc.start()
    read = list(ReportFiles(path, ReportsConfig(max_chars=1000)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [r.reason for r in read if isinstance(r, Problem)] == [Reason.TOO_LARGE]
    assert [r.accession for r in read if isinstance(r, Report)] == ["A2"]
    assert peak < 3_000_000


@pytest.mark.parametrize(
    ("content", "settings_", "message"),
    [
        ("accession,date\nA,1\n", {}, "text: text or report"),
        ("text,date\nA,1\n", {}, "accession"),
        ("", {}, "lacks a column"),
        ("SMITH^JOHN,1.2.3,normal chest\n", {}, "lacks a column"),
        ("accession,text\nA,1\n", {"text": "Befund"}, "text: Befund"),
        ("accession,text,text\nA,1,2\n", {}, "stands twice"),
    ],
)
def test_a_table_without_its_columns_is_said_so_and_not_shown(
    tmp_path: Path, content: str, settings_: dict[str, str], message: str
) -> None:
    path = tmp_path / "r.csv"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message) as error:
        ReportFiles(path, build(ReportsConfig, settings_))
    assert "SMITH" not in str(error.value) and str(path) not in str(error.value)


def test_columns_and_encoding_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes("Nr;Befund größe\nA1;双肺清晰\n".encode("gb18030"))
    chosen = build(ReportsConfig, {"accession": "nr", "text": "Befund Größe", "encoding": "gb18030"})
    assert [r.text for r in ReportFiles(path, chosen)] == ["双肺清晰"]
    for key, value in (("encoding", "klingon"), ("delimiter", "ab"), ("max_chars", 0)):
        with pytest.raises(ConfigError, match=key):
            build(ReportsConfig, {key: value})


def test_a_folder_of_text_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "1.2.840.5.txt").write_text("by uid")
    (tmp_path / "sub" / "ACC-7.TXT").write_bytes("größe".encode("cp1252"))
    (tmp_path / "ACC8").write_text("no suffix")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "odd.txt").write_bytes(b"\x81\x00")
    (tmp_path / "long.txt").write_text("x" * 300)
    (tmp_path / "scan.pdf").write_bytes(b"%PDF")
    (tmp_path / "link.txt").symlink_to("/etc/hostname")
    files = ReportFiles(tmp_path, ReportsConfig(max_chars=200))
    read = list(files)
    reports = {r.accession: (r.study_uid, r.text) for r in read if isinstance(r, Report)}
    assert reports == {
        "1.2.840.5": ("1.2.840.5", "by uid"),
        "ACC-7": ("", "größe"),
        "ACC8": ("", "no suffix"),
    }
    assert sorted(r.reason for r in read if isinstance(r, Problem)) == [
        Reason.REPORT_EMPTY,
        Reason.REPORT_ENCODING,
        Reason.TOO_LARGE,
    ]
    assert files.ignored == 2
    assert all(files.text(r.place) == r.text for r in read if isinstance(r, Report))


def test_a_missing_path_and_a_changed_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        ReportFiles(tmp_path / "absent")
    path = tmp_path / "r.csv"
    path.write_bytes(table([["accession", "text"], ["A", "one two three"]]))
    files = ReportFiles(path)
    (report,) = files
    path.write_bytes(b'accession,text\n"')
    with pytest.raises(Refusal, match="changed"):
        files.text(report.place)
    folder = ReportFiles(tmp_path)
    with pytest.raises(Refusal, match="missing_file"):
        folder.text(Place("gone.txt", 0, 0))


def test_memory_is_flat_in_the_number_of_reports(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        path = tmp_path / f"{count}.csv"
        rng = random.Random(0)
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["accession", "text"])
            for number in range(count):
                writer.writerow([f"A{number}", "".join(rng.choices("abc \n", k=300))])
        tracemalloc.start()
        assert sum(1 for _ in ReportFiles(path)) == count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(1000) < 1.3 * peak(100) + 20_000


def test_a_report_shows_nothing() -> None:
    assert "secret" not in repr(Report("secret text", Place("secret", 0, 1), "secret"))
