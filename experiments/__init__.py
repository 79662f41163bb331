"""Experiments on top of the package: the mixture ablation."""
