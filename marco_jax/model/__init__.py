"""Qwen2 in Flax NNX, its mesh and sharding rules, and its Hugging Face import and export."""
