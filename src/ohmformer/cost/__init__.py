"""What does each component cost, and which engine of the chip does what? Free of torch."""
