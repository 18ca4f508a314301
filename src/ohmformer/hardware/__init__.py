"""Which engines does an accelerator have, and which engine and array does an operand get? Free of torch."""
