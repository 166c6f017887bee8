"""The parts of experiments.synthesize: settings, models, mined pairs, pages to look through, and the run."""
