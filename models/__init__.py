"""The science: towers, objectives, evaluation. Knows nothing of federation, network or raw patient files."""
