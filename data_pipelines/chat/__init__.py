"""Questions to chat models, hosted or on this machine: versioned prompts, kept answers, batch files, costs."""
