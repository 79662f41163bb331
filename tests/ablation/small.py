"""Runs of a sweep that take seconds."""


def small_runs(data):
    """Fields of a config, for the corpus in the folder `data`."""
    return {
        "data": data / "corpus.jsonl",
        "tokenizer.path": data / "tokenizer",
        "model.hidden_size": 32,
        "model.intermediate_size": 64,
        "model.num_hidden_layers": 1,
        "model.num_attention_heads": 2,
        "model.head_dim": 16,
        "batch.length": 32,
        "evaluation.max_length": 128,
        "evaluation.examples.bits_per_byte": 2,
    }
