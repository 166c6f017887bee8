"""Pure Flax Linen modules, one file per idea of the papers."""
