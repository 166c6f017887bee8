"""The cost of compiled programs: FLOPs, memory, bytes sent, and the time to expect of a chip."""
