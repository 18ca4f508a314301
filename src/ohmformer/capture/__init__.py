"""What does a PyTorch model multiply? Knows no hardware."""
