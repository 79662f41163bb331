"""The train loop and its parts: step, losses, optimizer and schedules, checkpoints, metrics."""
