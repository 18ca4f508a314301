"""What a person reads: pure functions of stored results."""
