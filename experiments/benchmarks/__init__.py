"""What experiments.benchmark measures."""
