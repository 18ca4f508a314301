"""Which operand name and which role does a captured product have, or why is it refused? The same for both halves."""
