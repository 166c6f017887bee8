"""What the commands share: assembly, data, galleries, scoring, plans, the command line and the compile cache."""
