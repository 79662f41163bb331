"""Fine-tuning and preference training of the demo: what they do to its translations."""
