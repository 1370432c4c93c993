"""The texts of reports, scrubbed with what the headers of their study say, and put into the store.

A name can only be looked for when it is known, and headers are never kept. So after matching, the headers of
the studies that have a new report are read once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from client.ingest.codes import Reason
from client.ingest.header import Header
from client.ingest.matching import MatchSummary, match_reports, report_text
from client.ingest.pseudonym import Pseudonyms
from client.ingest.readers import Readers
from client.ingest.reading import Heading, Refused
from client.ingest.refusal import Refusal
from client.ingest.reports import ReportFiles
from client.ingest.sandbox import Sandbox
from client.ingest.scrub import Known, clean_report
from client.ingest.siteindex import SiteIndex
from client.ingest.writer import StoreWriter

VERSION = 1
"""Of the scrubber: counted up when it finds more than before, so that every text is scrubbed anew."""

Progress = Callable[[str, int, int], None]


@dataclass
class _Waiting:
    """A study whose text is to be written: files whose header is still to come, and those that are there."""

    files: int
    digest: str
    headers: list[Header] = field(default_factory=list)


def take_reports(
    files: ReportFiles,
    paths: Iterator[tuple[Path, str]],
    readers: Readers,
    writer: StoreWriter,
    index: SiteIndex,
    pseudonyms: Pseudonyms,
    progress: Progress,
) -> tuple[MatchSummary, int]:
    """Match ``files`` with the studies of the index, scrub what is new and write it.

    ``paths`` are the DICOM files of this ingest with their items. Returns how matching went, and how many studies got
    a new text.
    """
    writer.quarantined.release_reports()

    def note(code: Reason, item: str) -> None:
        writer.quarantined.note(code, writer.key("item", item), "report")

    summary = match_reports(files, index, pseudonyms, note)

    def settle(study: str, entry: _Waiting) -> bool:
        code = _write(study, entry, files, writer, index) if entry.headers else Reason.REPORT_HEADER_GONE
        if code is not None:
            summary.problems[code] += 1
            note(code, study)
        return code is None

    waiting = _stale(writer, index)
    written, total = 0, len(waiting)
    asked = ((path, item) for path, item in paths if _study_of(index, item) in waiting) if waiting else ()
    for (_, item), answer in readers.each(asked, _heading, lambda _: True):
        study = _study_of(index, item)
        entry = waiting[study]
        entry.files -= 1
        # A header that cannot be read now counts as one whose names cannot be looked for.
        entry.headers.append(answer.header if isinstance(answer, Heading) else Header(damaged=("patient_name",)))
        if not entry.files:
            written += settle(study, waiting.pop(study))
            progress("reports", total - len(waiting), total)
    for study in sorted(waiting):  # some of their files are not in this folder
        written += settle(study, waiting[study])
    return summary, written


def _stale(writer: StoreWriter, index: SiteIndex) -> dict[str, _Waiting]:
    """Studies with a usable report whose text the store does not have yet."""
    waiting = {}
    for study in index.studies_with_usable_report():
        digest = writer.key("text", str(VERSION), index.report_of(study) or "")
        had = index.text_of(study)
        if had is None or had != (digest, writer.text_sum(study)):
            files = [item for item, seen in index.files_of(study) if not seen.code]
            if files:
                waiting[study] = _Waiting(len(files), digest)
    return waiting


def _study_of(index: SiteIndex, item: str) -> str | None:
    seen = index.seen(item)
    return None if seen is None or seen.code else seen.study


def _heading(sandbox: Sandbox, asked: tuple[Path, str]) -> Heading | Refused:
    return sandbox.heading(asked[0])


def _write(study: str, entry: _Waiting, files: ReportFiles, writer: StoreWriter, index: SiteIndex) -> Reason | None:
    """Scrub the report of one study and write it; or why not."""
    try:
        text = report_text(files, index, study)
        sections = clean_report(text or "", Known.of(*entry.headers))
    except Refusal as refusal:
        return refusal.reason
    impression = (
        " ".join(filter(None, (sections.impression, sections.addendum))) or None
    )  # an addendum has the last word
    index.set_text(study, entry.digest, writer.set_text(study, sections.findings, impression))
    return None
