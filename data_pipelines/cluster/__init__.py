"""Work on rows by this process or by the nodes of a Ray cluster, with the same results in the same order."""
