"""What multiplies: the modules of a model on crossbars."""
