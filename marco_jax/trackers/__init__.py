"""Trackers: where the metrics of a run go besides metrics.jsonl, the user's own among them."""
