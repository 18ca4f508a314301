"""What it costs: components, the hierarchy around them, and which engine does what. Free of torch."""
