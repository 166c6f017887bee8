"""The embedded data set: scenes of real pictograms with texts that are true by construction."""
