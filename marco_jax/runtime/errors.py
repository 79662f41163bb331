"""What ends a command with exit code 1 rather than 2: the input was good, the work failed."""

from __future__ import annotations


class RunFailed(Exception):
    """The run cannot go on; the message says why, what is kept and what helps."""
