"""What is done to values before they are written."""
