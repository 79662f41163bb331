"""Byte-level BPE and SentencePiece behind one interface, chat templates, new vocabulary."""
