"""The process a command runs in: logs, progress, locks, other processes, the compilation cache."""
