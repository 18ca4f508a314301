"""What does a PyTorch model multiply when it runs once, and which axis holds the samples? Knows no hardware."""
