"""Matrices onto arrays: how many, how full, and how often they are written and read."""
