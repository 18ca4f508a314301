"""What does a person read? Pure functions of stored results."""
