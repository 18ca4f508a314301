"""Where models come from, and what their inputs become."""
