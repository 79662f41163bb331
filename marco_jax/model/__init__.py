"""Qwen2 in Flax NNX: attention, adapters, the mesh and its sharding rules."""
