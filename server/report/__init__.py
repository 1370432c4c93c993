"""The results page of a run: one HTML file that needs nothing else."""

from server.report.page import render, write_report

__all__ = ["render", "write_report"]
