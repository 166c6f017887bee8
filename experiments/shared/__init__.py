"""What the commands share: assembly, data, galleries, scoring, planning, the command line and the compile cache."""
