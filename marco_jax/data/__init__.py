"""Corpora, mixtures, the token store, packing, and the feed to the mesh."""
