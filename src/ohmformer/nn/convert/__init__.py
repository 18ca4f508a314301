"""Put a model on crossbars, and take it off again."""
