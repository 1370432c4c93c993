"""The coordinator: rounds, run folder, evaluation, results."""
