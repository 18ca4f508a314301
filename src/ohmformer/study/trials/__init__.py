"""Trials of a point: how many chips and samples, and the share of good chips."""
