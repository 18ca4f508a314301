"""Which operand name, which role and which rule does a captured product have? The answer is the same for both halves."""
