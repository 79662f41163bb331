"""What one lent GPU is used for: numbers of training, decoding and attention, then the study."""
