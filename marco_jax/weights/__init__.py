"""Weights in and out: checkpoints, Hugging Face directories, adapters, model cards."""
