"""The two stages from a published Qwen2.5-0.5B: what it gains, and what it forgets."""
