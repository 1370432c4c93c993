"""Which study a report belongs to: by study UID first, then by accession number if that names one study only.

    summary = match_reports(files, index, pseudonyms, writer.quarantine)
    text = report_text(files, index, study)         # of one study, or None

The answer depends on what is in the files and the index, not on its order. Two different reports of one
study contradict each other and neither is used; a report that is marked as an addendum is added to the
other.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from client.ingest.codes import Reason
from client.ingest.pseudonym import Pseudonyms, parse_date
from client.ingest.reports import Place, Problem, Report, ReportFiles, ReportsConfig
from client.ingest.siteindex import SiteIndex

Entry = dict[str, list[dict[str, Any]]]
"""Reports and addenda of one study: digest, day, place."""

Note = Callable[[Reason, str], None]
"""Takes a code and what names the item; must hash the latter before it writes it."""

_COMMIT_EVERY = 10_000
_MOST_ADDENDA = 20
"""More than so many addenda to one report are a broken export, treated as a contradiction."""
_ADDENDUM = re.compile(r"\W{0,20}(?:late[ \t])?addend(?:um|a)\b", re.IGNORECASE)


@dataclass
class MatchSummary:
    """How matching went.

    Attributes:
        read: reports that could be read.
        matched: studies with a usable report.
        duplicates: reports that say the same as another of their study.
        addenda: reports that were added to another.
        unreadable_dates: reports whose date could not be read, so that it was not compared.
        ignored: files that are no reports by their name.
        problems: how many by code, those without report included.
    """

    read: int = 0
    matched: int = 0
    duplicates: int = 0
    addenda: int = 0
    unreadable_dates: int = 0
    ignored: int = 0
    problems: Counter[Reason] = field(default_factory=Counter)


def match_reports(files: ReportFiles, index: SiteIndex, pseudonyms: Pseudonyms, note: Note) -> MatchSummary:
    """Match all reports with the studies in ``index`` and note what has no counterpart on either side."""
    summary = MatchSummary()

    def problem(reason: Reason, item: str) -> None:
        summary.problems[reason] += 1
        note(reason, item)

    index.clear_reports()
    for found in files:
        if isinstance(found, Problem):
            problem(found.reason, found.item)
            continue
        summary.read += 1
        study = _study_of(found, index, pseudonyms)
        if isinstance(study, Reason):
            problem(study, found.item)
            continue
        day = _day_of(found, study, index, pseudonyms, summary)
        if not _near(day, index.day_of(study), files.settings):
            problem(Reason.REPORT_DATE, found.item)
            continue
        _enter(found, study, day, index, pseudonyms, summary)
        if summary.read % _COMMIT_EVERY == 0:
            index.commit()
    for study in index.conflicting_reports():
        problem(Reason.REPORT_CONFLICT, study)
    for study in index.studies_without_report():
        problem(Reason.STUDY_WITHOUT_REPORT, study)
    index.commit()
    summary.matched = index.studies_with_report()
    summary.ignored = files.ignored
    return summary


def report_text(files: ReportFiles, index: SiteIndex, study: str) -> str | None:
    """The text of a study's report, its addenda behind it; ``None`` where it has none that is usable.

    Raises:
        Refusal: the report file changed since it was matched.
    """
    noted = index.report_of(study)
    if noted is None:
        return None
    entry = json.loads(noted)
    if not _usable(entry):
        return None
    parts = entry["reports"] + entry["addenda"]
    return "\n\n".join(files.text(Place(*part["place"])) for part in parts)


def _study_of(report: Report, index: SiteIndex, pseudonyms: Pseudonyms) -> str | Reason:
    if not report.study_uid and not report.accession:
        return Reason.REPORT_NO_KEY
    if report.study_uid:
        study = pseudonyms.study(report.study_uid)
        patient = index.patient_of(study)
        if patient is not None:
            return patient if isinstance(patient, Reason) else study
    if not report.accession:
        return Reason.REPORT_UNMATCHED
    found = index.study_by_accession(pseudonyms.accession(report.accession))
    if isinstance(found, Reason):
        return found
    patient = index.patient_of(found)
    return patient if isinstance(patient, Reason) else found


def _day_of(report: Report, study: str, index: SiteIndex, pseudonyms: Pseudonyms, summary: MatchSummary) -> int | None:
    patient = index.patient_of(study)
    date = parse_date(report.date)
    if date is None or not isinstance(patient, str) or isinstance(patient, Reason):
        summary.unreadable_dates += bool(report.date)
        return None
    return pseudonyms.day(patient, date)


def _near(report: int | None, study: int | None, settings: ReportsConfig) -> bool:
    if report is None or study is None or settings.max_days_apart is None:
        return True
    return abs(report - study) <= settings.max_days_apart


def _enter(
    report: Report,
    study: str,
    day: int | None,
    index: SiteIndex,
    pseudonyms: Pseudonyms,
    summary: MatchSummary,
) -> None:
    """Add a report to those of its study, in an order that does not depend on which came first."""
    noted = index.report_of(study)
    entry: Entry = json.loads(noted) if noted else {"reports": [], "addenda": []}
    digest = pseudonyms.report(" ".join(report.text.split()))
    if any(known["digest"] == digest for known in entry["reports"] + entry["addenda"]):
        summary.duplicates += 1
        return
    addendum = _ADDENDUM.match(report.text) is not None
    summary.addenda += addendum
    part = {"digest": digest, "day": day, "place": list(report.place)}
    kind = entry["addenda" if addendum else "reports"]
    kind.append(part)
    kind.sort(key=lambda known: (known["day"] is None, known["day"] or 0, known["digest"]))
    index.set_report(study, json.dumps(entry), _usable(entry))


def _usable(entry: Entry) -> bool:
    return len(entry["reports"]) <= 1 and len(entry["addenda"]) <= _MOST_ADDENDA
