"""What a training step minimises: cross-entropy, losses of preferences and of answers; fields."""
