"""Measures `marco curate`: `quality`, `duplicates` and `speed`, each a command.

All read the text corpora below --corpora.
"""
