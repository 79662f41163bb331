"""Scoring and generation: compiled programs, and the engine that batches requests for them."""
