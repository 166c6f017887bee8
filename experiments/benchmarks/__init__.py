"""The measurements behind `benchmark` and `contrastive`."""
