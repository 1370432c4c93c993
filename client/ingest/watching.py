"""Ingests a folder that grows: looks again and again, and takes in what has come to rest."""

from __future__ import annotations

import threading

from client.ingest.intake import Intake, Progress, Summary


def watch_folder(intake: Intake, stop: threading.Event, every: float, progress: Progress) -> Summary:
    """Run ``intake`` every ``every`` seconds until ``stop`` is set; the totals of all runs are returned.

    A file that changed within the last ``every`` seconds may still be written, and waits for the next look. A file
    that comes in pieces with long breaks is quarantined as truncated, and released once it is whole.
    """
    total = Summary()
    while True:
        latest = intake.run(progress, rested=every)
        total.accepted += latest.accepted
        total.withdrawn += latest.withdrawn
        total.changed += latest.changed
        total.seconds += latest.seconds
        total.duplicate, total.quarantined = latest.duplicate, latest.quarantined
        total.pairs, total.reports, total.replaced = latest.pairs, latest.reports, latest.replaced
        if stop.wait(every):
            return total
