"""Which product of two matrices is a call of PyTorch, and what makes its result of theirs?"""
