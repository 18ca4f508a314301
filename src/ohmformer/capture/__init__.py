"""What does a PyTorch model multiply when it runs once, and which axis holds samples? Knows no hardware."""
