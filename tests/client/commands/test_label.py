"""``fedcxr-site label``: what it writes, what it refuses, what it never shows."""

import csv

import pytest

from models.studies.schema import CHEXPERT

HEAD = "report,findings,impression\n"


@pytest.fixture
def table(tmp_path):
    def write(text, name="reports.csv", **how):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode(**how))
        return path

    return write


@pytest.fixture
def label(run, tmp_path):
    def start(path, *more, columns="findings,impression", key="report", out=None):
        out = out or tmp_path / "labels.csv"
        return run("label", "--csv", path, "--text-columns", columns, "--id-column", key, "--out", out, *more)

    return start


def read(tmp_path):
    with open(tmp_path / "labels.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_one_column_a_class(table, label, tmp_path):
    path = table(
        HEAD + 'a,Small effusion. No pneumothorax.,"Possible pneumonia, cardiomegaly."\nb,,Normal chest.\nc,,\n'
    )
    done = label(path)
    assert done.exit_code == 0 and "2 of 3 reports labelled" in done.stdout and "1 without any text" in done.stdout
    rows = read(tmp_path)
    assert list(rows[0]) == ["report", *CHEXPERT] and [row["report"] for row in rows] == ["a", "b", "c"]
    assert {k: v for k, v in rows[0].items() if v and k != "report"} == {
        "Pleural Effusion": "present",
        "Pneumothorax": "absent",
        "Pneumonia": "uncertain",
        "Cardiomegaly": "uncertain",
    }
    assert {k: v for k, v in rows[1].items() if v} == {"report": "b", "No Finding": "present"}
    assert set("".join(rows[2].values())) == {"c"}


def test_settings(table, label, tmp_path):
    path = table(HEAD + "a,Likely consolidation.,\n")
    assert label(path, "--probable", "present", "--parents").exit_code == 0
    assert {k for k, v in read(tmp_path)[0].items() if v == "present"} == {"Consolidation", "Lung Opacity"}
    done = label(path, "--probable", "perhaps")
    assert done.exit_code == 2 and "probable" in done.stderr


def test_json_is_one_object(table, label, one_object):
    told = one_object(label(table(HEAD + "a,Effusion.,\nb,No edema.,\n"), "--json").stdout)
    assert told["rows"] == told["labelled"] == 2 and told["unreadable"] == 0
    assert told["labels"]["Pleural Effusion"] == {"present": 1, "absent": 0, "uncertain": 0}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_encodings_and_delimiters(table, label, tmp_path, encoding, delimiter):
    text = "report,findings\nn\u00e41,No pneumothorax \u2013 small effusion.\n".replace(",", delimiter)
    done = label(table(text.encode(encoding)), columns="findings")
    assert done.exit_code == 0, done.stderr
    row = read(tmp_path)[0]
    assert row["report"] == "n\u00e41" and row["Pneumothorax"] == "absent" and row["Pleural Effusion"] == "present"


def test_line_breaks_headings_and_quotes_in_cells(table, label, tmp_path):
    path = table('id,text\r\n1,"FINDINGS: He said ""no"".\r\nNo edema.\r\nIMPRESSION: Effusion."\r\n')
    assert label(path, columns="text", key="id").exit_code == 0
    assert {k: v for k, v in read(tmp_path)[0].items() if v} == {
        "id": "1",
        "Edema": "absent",
        "Pleural Effusion": "present",
    }


@pytest.mark.parametrize(
    ("columns", "key", "told"),
    [
        ("findings,impresion", "report", "no column impresion; there are report, findings, impression"),
        ("findings", "study", "no column study"),
        (" , ", "report", "no column named"),
    ],
)
def test_missing_columns_are_named(table, label, columns, key, told, tmp_path):
    done = label(table(HEAD + "a,b,c\n"), columns=columns, key=key)
    assert done.exit_code == 2 and told in " ".join(done.stderr.split()) and not (tmp_path / "labels.csv").exists()


def test_a_column_twice_is_refused(table, label):
    done = label(table("report,findings,findings\na,b,c\n"), columns="findings")
    assert done.exit_code == 2 and "more than one column" in done.stderr


@pytest.mark.parametrize(
    "raw", [b"", bytes(range(256)) * 40, b"\xff\xd8\xff\xe0JFIF" + b"\x9c\x01\xfe" * 900, b"\0" * 4000]
)
def test_what_is_no_table_is_refused_and_not_shown(table, label, raw, tmp_path):
    done = label(table(raw))
    assert done.exit_code == 2 and "cannot" in done.stderr and done.stderr.isascii()
    assert not (tmp_path / "labels.csv").exists()


def test_bad_rows_cost_themselves(table, label, tmp_path):
    rows = b"a,Effusion.,\nb,too,many,cells\nc,few\nd,\x81\x8d\x8f bin\x01ary,\ne,Edema.,\n"
    done = label(table(HEAD.encode() + rows))
    assert done.exit_code == 0 and "3 rows that cannot be read" in done.stdout
    assert [row["report"] for row in read(tmp_path)] == ["a", "e"]


def test_texts_that_say_nothing(table, label, tmp_path):
    long = "Lungs are clear. " * 2000
    path = table(HEAD + f"a,FINDINGS:,IMPRESSION:\nb,\u80f8\u90e8\u6b63\u5e38,\nc,\U0001fac1\U0001f44d,\nd,{long},\n")
    done = label(path)
    assert (
        done.exit_code == 0
        and "3 in which nothing was recognised" in done.stdout
        and "1 longer than is read" in done.stdout
    )
    rows = read(tmp_path)
    assert [any(v for k, v in row.items() if k != "report") for row in rows] == [False, False, False, True]


def test_places(table, label, tmp_path):
    path = table(HEAD + "a,b,c\n")
    before = path.read_bytes()
    for out, told in (
        (path, "the table itself"),
        (tmp_path, "a folder"),
        (tmp_path / "no" / "x.csv", "does not exist"),
    ):
        done = label(path, out=out)
        assert done.exit_code == 2 and told in " ".join(done.stderr.split())
    assert path.read_bytes() == before
    assert label(tmp_path / "nosuch.csv").exit_code == 2


def test_an_older_table_is_replaced_whole_and_nothing_is_left_behind(table, label, tmp_path):
    path = table(HEAD + "a,Edema.,\n")
    assert label(path).exit_code == label(path).exit_code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["labels.csv", "reports.csv"]


def test_a_folder_that_cannot_be_written_makes_it_fail(table, label, tmp_path, monkeypatch):
    import client.commands.label as module

    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.tempfile, "mkstemp", full)
    done = label(table(HEAD + "a,Edema.,\n"))
    assert done.exit_code == 1 and "No space left" in done.stderr and not (tmp_path / "labels.csv").exists()


def test_no_report_text_is_shown_or_kept(table, label, tmp_path):
    done = label(table(HEAD + "a,Zaphodbeeble has an effusion.,\nb,Zaphodbeeble,extra,cell\n"), "--json")
    assert "Zaphod" not in done.stdout + done.stderr + (tmp_path / "labels.csv").read_text()


def test_help_has_an_example(run):
    done = run("label", "--help")
    assert done.exit_code == 0 and "fedcxr-site label --csv" in " ".join(done.stdout.split())


def test_it_starts_without_flower(process, table, tmp_path):
    path = table(HEAD + "a,Edema.,\n")
    done = process(
        "label", "--csv", path, "--text-columns", "findings", "--id-column", "report", "--out", tmp_path / "o.csv"
    )
    assert done.returncode == 0 and "1 of 1" in done.stdout
