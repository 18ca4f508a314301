"""A real model on crossbars: capture its products, program its operands, run it."""
