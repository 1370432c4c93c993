"""Nothing identifying gets out: sentinels in every row of the table, then a search through everything
written.
"""

from __future__ import annotations

import datetime
import io
import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.datadict import keyword_for_tag

from client.ingest.deidentify import WRITTEN
from client.ingest.ps315 import load_table
from client.ingest.pseudonym import SHIFT_DAYS

ROOT = Path(__file__).resolve().parents[4]
SYNTAXES = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom, about the planted files

COMMAND_ROWS = ("row 00001000", "row 00001001")

SCRIPT = """
import json, logging, sys, warnings
from pathlib import Path
logging.basicConfig(level=logging.DEBUG)
warnings.simplefilter("always")
from client.ingest import radiograph
from client.ingest.export import Exporter
from client.ingest.pseudonym import Pseudonyms
from client.ingest.writer import StoreWriter
source, out, store = map(Path, sys.argv[1:4])
secret = b"a fixed secret for the tests ..."
exporter = Exporter(out, Pseudonyms(secret))
with StoreWriter(store, secret=secret) as writer:
    for path in sorted(source.iterdir()):
        answer, pixels = radiograph.serve(exporter.task(path))
        answer = json.loads(json.dumps(answer))
        result = exporter.write(answer, b"" if pixels is None else pixels.tobytes())
        if not isinstance(result, Path):
            writer.quarantine(result, path.name)
    writer.finish()
print(json.dumps(exporter.counts))
"""


def run(tmp_path: Path, files: dict[str, bytes]) -> tuple[dict[str, int], bytes, list[Path]]:
    """Export in a process of its own: (counts, everything it wrote anywhere, exported files)."""
    source, out, store = tmp_path / "in", tmp_path / "out", tmp_path / "store"
    source.mkdir()
    for name, data in files.items():
        (source / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, source, out, store],
        cwd=ROOT,
        capture_output=True,
        timeout=120,
        check=True,
    )
    exported = sorted(out.rglob("*.dcm"))
    written = [*exported, *(p for p in store.rglob("*") if p.is_file())]
    names = "\n".join(str(p.relative_to(tmp_path)) for p in [*out.rglob("*"), *store.rglob("*")]).encode()
    everything = b"\n".join([names, done.stdout, done.stderr, *(p.read_bytes() for p in written)])
    return json.loads(done.stdout.splitlines()[-1]), everything, exported


def readable(data: bytes) -> pydicom.Dataset:
    """The planted file as pydicom reads it, without the command group, which it will not write."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    for tag in [element.tag for element in dataset if element.tag.group == 0]:
        del dataset[tag]
    return dataset


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_no_sentinel_leaves(tmp_path: Path, sentinels, syntax: str) -> None:
    planted = sentinels.plant(syntax)
    refused = planted.data[:-3000]  # cut short: goes to the quarantine
    counts, everything, exported = run(
        tmp_path, {"SNT09998Q.dcm": planted.data, "SNT09999Q.dcm": refused, "SNT09997Q.txt": b"SNT09996Q"}
    )
    assert counts["exported"] == 1 and sum(counts.values()) == 3, counts
    tokens = planted.tokens | {f"name {n}": f"SNT0999{n}Q".encode() for n in (6, 7, 8, 9)}
    assert len([where for where in tokens if where.startswith("row")]) + 65 >= 655  # 65 rows are sequences
    assert sentinels.found_in(everything, tokens) == []
    assert len(exported) == 1


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_search_finds_them_in_a_naive_copy(sentinels, syntax: str) -> None:
    """Negative control: the same search on what a careless de-identifier would write."""
    planted = sentinels.plant(syntax)
    dataset = readable(planted.data)
    dataset.remove_private_tags()
    dataset.PatientName = dataset.PatientID = "ANON"
    out = io.BytesIO()
    dataset.save_as(out, implicit_vr=syntax == "1.2.840.10008.1.2", little_endian=True)
    data = out.getvalue()
    if syntax.endswith(".99"):
        start = data.index(b"DICM") + 4 + 12 + pydicom.dcmread(io.BytesIO(data)).file_meta[0x00020000].value
        data = data[:start] + zlib.decompress(data[start:], -15)
    found = set(sentinels.found_in(data, planted.tokens))
    hidden = {where for where, token in planted.tokens.items() if token}
    missed = {where for where in hidden - found if "row" in where}
    # the two names it replaced, the command group it may not write, and the private elements it removed
    assert {m for m in missed if "0009" not in m} <= {"row 00100010", "row 00100020", *COMMAND_ROWS}, missed
    assert {"unused bits", "preamble", "extra 00020016", "extra 60023000", "extra 50023000"} <= found
    assert len(found) > 900


@pytest.fixture(scope="module")
def exported(tmp_path_factory, sentinels) -> Path:
    """The planted file, exported."""
    _, _, (path,) = run(tmp_path_factory.mktemp("exported"), {"a": sentinels.plant().data})
    return path


def test_only_written_attributes_are_in_the_file(exported: Path, sentinels) -> None:
    """Beyond the byte search: short VRs cannot be searched for, so the attributes are counted."""
    dataset = pydicom.dcmread(exported)
    table = load_table()
    keywords = {keyword_for_tag(element.tag) for element in dataset.iterall()}
    assert keywords <= set(WRITTEN)
    forbidden = {k for k in keywords if "X" in (table.action(pydicom.datadict.tag_for_keyword(k)) or "")}
    assert forbidden <= {"PatientAge", "AcquisitionDate", "ContentDate", "StudyTime"}  # the two options
    assert not any(element.tag.is_private for element in dataset.iterall())
    assert set(dataset.file_meta.dir()) == {
        "FileMetaInformationGroupLength",
        "FileMetaInformationVersion",
        "MediaStorageSOPClassUID",
        "MediaStorageSOPInstanceUID",
        "TransferSyntaxUID",
        "ImplementationClassUID",
        "ImplementationVersionName",
    }
    assert exported.read_bytes()[:128] == b"\0" * 128
    assert np.array_equal(dataset.pixel_array & 0xFFF, sentinels.chest())
    assert dataset.pixel_array.max() < 4096


def test_dates_are_shifted_not_kept(exported: Path, sentinels) -> None:
    """The sentinel days lie within the table's length; the shift is at least a year, so none can come
    back.
    """
    planted = sentinels.plant()
    tokens = {int(t) for where, t in planted.tokens.items() if where.startswith("row") and t.isdigit() and len(t) == 8}
    moved = datetime.datetime.strptime(pydicom.dcmread(exported).StudyDate, "%Y%m%d").date()
    assert int(moved.strftime("%Y%m%d")) not in tokens
    study = next(t for where, t in planted.tokens.items() if where == "row 00080020")
    gap = datetime.datetime.strptime(study.decode(), "%Y%m%d").date() - moved
    assert SHIFT_DAYS[0] <= gap.days <= SHIFT_DAYS[1]


def test_a_comment_in_the_codestream_stays_behind(tmp_path: Path, sentinels) -> None:
    picture = (sentinels.chest() >> 4).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=95, comment=b"SENTINELINTHEJPEG")
    dataset = readable(sentinels.plant().data)
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.WindowCenter, dataset.WindowWidth = 128, 256
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
    dataset.PixelData = pydicom.encaps.encapsulate([stream.getvalue()])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    out = io.BytesIO()
    dataset.save_as(out)
    token = {"comment": b"SENTINELINTHEJPEG"}
    assert sentinels.found_in(out.getvalue(), token) == ["comment"]
    counts, everything, exported = run(tmp_path, {"a": out.getvalue()})
    assert counts == {"exported": 1}
    assert sentinels.found_in(everything, token) == []
    assert pydicom.dcmread(exported[0]).LossyImageCompression == "01"
