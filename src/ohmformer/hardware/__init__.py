"""Which engines does an accelerator have, and which of them holds which operand? Free of torch."""
