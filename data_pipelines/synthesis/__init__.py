"""Pictures -> descriptions -> difference texts -> filtered triplets: training data made by models."""
