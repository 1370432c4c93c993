"""The generated hostile corpus: every kind gets its code, quickly, and the child lives within its means."""

from __future__ import annotations

import psutil
import pytest

from client.ingest.reading import ReadConfig, Reading, Refused
from client.ingest.sandbox import Sandbox
from tests.faults import hostile_dicom


def test_the_corpus_is_large_and_starts_from_a_good_file(sandbox: Sandbox) -> None:
    assert len(hostile_dicom.names()) >= 40
    assert isinstance(sandbox.read(hostile_dicom.good()), Reading)  # else every refusal below would prove nothing


@pytest.mark.parametrize("name", hostile_dicom.names())
def test_every_kind_gets_its_code(name: str, sandbox: Sandbox) -> None:
    """Within 5 seconds, in the child's processor time: a busy machine must not decide."""
    data, expected = hostile_dicom.one(name)
    sandbox.read(b"")
    child = psutil.Process(sandbox.pid)
    before = sum(child.cpu_times()[:2])
    result = sandbox.read(data)
    assert isinstance(result, Refused), "let in"
    assert (result.reason, result.note) == (expected, result.note)
    assert child.is_running(), "the child died of it"
    assert sum(child.cpu_times()[:2]) - before < 5
    resident, space = sandbox.peak_memory()
    assert resident < 1 << 30
    assert space <= ReadConfig().limits.memory_bytes
