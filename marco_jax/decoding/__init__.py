"""Compiled kernels (prefill, score, decode) and the engine that batches requests onto them."""
