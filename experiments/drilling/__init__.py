"""What experiments.selftest drills with: small recipes, the command in processes of its own, the plan."""
