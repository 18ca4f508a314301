"""The accelerator: its engines, and which of them holds which operand."""
