"""Host side: files -> batches of numpy arrays."""
