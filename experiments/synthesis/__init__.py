"""What experiments.synthesize is made of: models from flags, pictures embedded, pages to look through."""
