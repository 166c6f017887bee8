"""Modules that several commands share: models, training, data, galleries, scoring, planning and the command line."""
