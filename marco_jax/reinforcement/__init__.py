"""Reinforcement learning: prompts, rewards, and batches of sampled answers."""
