"""Qwen2 and Qwen3 in Flax NNX: attention, LoRA adapters, the mesh and its sharding rules."""
