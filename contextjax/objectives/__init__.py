"""Per system: represent(params, batch) and terms(representations, batch) -> named loss terms."""
