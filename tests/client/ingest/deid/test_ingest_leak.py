"""The whole ingest, reports included, on files with a sentinel in every attribute: nothing of them is written."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
SYNTAXES = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"]
NOISY = """
import logging, sys, warnings
logging.basicConfig(level=logging.DEBUG)
warnings.simplefilter("always")
from client.cli import main
main()
"""
IN_TEXT = ("00100010", "00100020", "00101001", "00101005", "00101040", "00102154", "00080050", "00080090", "00081050")
"""Rows that the report quotes: names, numbers, address, telephone, accession number, physicians."""


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_no_sentinel_is_written_anywhere(tmp_path: Path, sentinels, syntax: str) -> None:
    planted = sentinels.plant(syntax)
    dicom = tmp_path / "SNT09998Q"
    dicom.mkdir()
    (dicom / "SNT09997Q.dcm").write_bytes(planted.data)
    (dicom / "SNT09996Q.dcm").write_bytes(planted.data[:-3000])  # cut short: refused
    (dicom / "SNT09995Q.txt").write_bytes(b"SNT09994Q")
    quoted = [planted.tokens[f"row {tag}"].decode() for tag in IN_TEXT]
    accession, uid = (planted.tokens[f"row {tag}"].decode() for tag in ("00080050", "0020000d"))
    text = f"FINDINGS: Mr {' and '.join(quoted)} of SNT09993Q@example.org, seen {planted.tokens['row 00080020'].decode()}. "
    text += "The lungs are clear.\nIMPRESSION: Normal chest. Dictated by Dr. SNT09992Q."
    reports = tmp_path / "SNT09991Q.csv"
    with reports.open("w", newline="") as file:
        rows = [("study_uid", "accession", "text"), (uid, accession, text), ("", "SNT09990Q", "Whose is SNT09989Q?")]
        csv.writer(file).writerows(rows)
    (tmp_path / "site").mkdir()
    yaml = tmp_path / "site" / "site.yaml"
    yaml.write_text("name: north\nstore: store\nsecret: site.secret\nstate: state\nworkers: 1\n")
    command = [sys.executable, "-c", NOISY, "ingest", "--dicom", dicom, "--reports", reports, "--site", yaml, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120)
    summary = json.loads(done.stdout)
    assert summary["accepted"] == 1, summary
    assert summary["quarantined"] == {"not_dicom": 1, "report_unmatched": 1, "truncated": 1}
    assert summary["reports"]["written"] == 1
    tokens = planted.tokens | {f"name {n}": f"SNT099{n}Q".encode() for n in range(89, 99)}
    written = [path for path in (tmp_path / "site").rglob("*") if path.is_file() and path != yaml]
    names = "\n".join(str(path.relative_to(tmp_path)) for path in written).encode()
    everything = b"\n".join([names, done.stdout, done.stderr, *(path.read_bytes() for path in written)])
    assert sentinels.found_in(everything, tokens) == []
    # The search would have found them: the scrubbed text is there to be searched, and the source is full of them.
    assert b"The lungs are clear." in everything
    source = b"\n".join([reports.read_bytes(), *(path.read_bytes() for path in dicom.iterdir()), str(dicom).encode()])
    if syntax != SYNTAXES[2]:
        assert len(sentinels.found_in(source, tokens)) > 900
