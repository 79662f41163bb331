"""What one lent GPU is used for: figures of training, decoding and attention, then the study."""
