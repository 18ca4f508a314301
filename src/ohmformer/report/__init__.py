"""What does a person read? Functions of stored results; only `figure` writes files."""
