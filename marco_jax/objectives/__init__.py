"""What a training step minimises: cross-entropy and losses of preferences; their fields."""
