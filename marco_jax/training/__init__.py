"""The train loop and what only it uses: step, losses, optimizer, hooks, metrics, faults."""
