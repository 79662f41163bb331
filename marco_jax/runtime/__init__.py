"""Runtime services of a process: logs, progress, locks, other processes, compilation cache."""
