"""The error of a run that fails although its input is valid: exit code 1 rather than 2."""

from __future__ import annotations


class RunFailed(Exception):
    """A run cannot continue; the message names the reason and the remedy."""
