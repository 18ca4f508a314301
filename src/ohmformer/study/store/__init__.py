"""Where are results kept? The database of a run, the disk it lies on, and which of its results other code computed."""
