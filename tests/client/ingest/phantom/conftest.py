import dataclasses
import json

import pytest

from client.ingest.phantom.habits import Archive
from client.ingest.phantom.hospital import write_hospital
from client.ingest.phantom.style import STYLES

SIZE = 96
SEED = 5


@pytest.fixture(scope="session")
def hospital(tmp_path_factory):
    """(folder, style, truth lines) of a small phantom hospital per style; all encodings equally often."""
    made = {}
    for name, n in (("north", 16), ("south", 12), ("east", 16)):
        known = STYLES[name].archive
        even = {
            field: dict.fromkeys(getattr(known, field), 1 / len(getattr(known, field)))
            for field in ("syntaxes", "bits", "windows")
        }
        archive = dataclasses.replace(known, **even, repeated=0.1)
        assert isinstance(archive, Archive)
        style = dataclasses.replace(STYLES[name], archive=archive)
        out = tmp_path_factory.mktemp("hospital") / name
        write_hospital(out, style, n, SEED, SIZE, workers=2)
        lines = [json.loads(line) for line in (out / "truth.jsonl").read_text(encoding="utf-8").splitlines()]
        made[name] = (out, style, lines)
    return made
