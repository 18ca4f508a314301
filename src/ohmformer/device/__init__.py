"""One cell: its conductance, and the ways in which it misses, wanders and breaks."""
