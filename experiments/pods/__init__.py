"""Runs of `marco` on TPU slices: queued resources, GKE by way of xpk, and what a run will cost."""
