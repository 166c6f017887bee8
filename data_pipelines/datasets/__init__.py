"""One reader per data set: yields records, nothing else."""
