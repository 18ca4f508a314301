"""Which operand name, which role and which rule does a captured product have? The same for both halves."""
