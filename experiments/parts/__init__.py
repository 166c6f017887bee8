"""What differs by system: its samples, its loss terms and its objectives."""
