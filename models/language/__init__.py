"""Radiology English: sections, findings, negation, words of change. Pure text, no model download."""
