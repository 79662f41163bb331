"""Measures `marco curate`: `python -m benchmarks.curation --help`."""
