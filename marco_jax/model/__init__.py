"""The Qwen2 model in Flax NNX: attention, LoRA adapters, the mesh and its sharding rules."""
