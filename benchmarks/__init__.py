"""Scripts that measure the package; each prints JSON."""
