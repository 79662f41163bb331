"""Corpora, SeqIO tasks and mixtures, packing, and the feed to the mesh."""
