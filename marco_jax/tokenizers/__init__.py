"""Tokenizers (byte-level BPE and SentencePiece), chat templates, and vocabulary extension."""
