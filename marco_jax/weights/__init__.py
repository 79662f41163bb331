"""Reading and writing weights: checkpoints, Hugging Face directories, adapters, model cards."""
