"""A hospital: its data, its policy, its trainer, its only door out."""
