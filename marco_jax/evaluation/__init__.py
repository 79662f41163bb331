"""Benchmarks, few-shot prompts, metrics and the evaluator, in the training loop and alone."""
