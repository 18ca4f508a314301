"""Which operand name and which role does a captured product have, or why is it refused? Both halves use the answer."""
