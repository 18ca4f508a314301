"""What does a PyTorch model multiply, and where do samples stand in it? Knows no hardware."""
