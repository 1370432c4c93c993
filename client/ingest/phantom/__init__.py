"""A phantom hospital: synthetic chest radiographs with known truth, for quickstart, tests and benchmarks."""
