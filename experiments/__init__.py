"""Studies and launchers on top of the package, run from a clone: `python -m experiments.NAME`."""
