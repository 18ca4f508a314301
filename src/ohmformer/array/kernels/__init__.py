"""Which steps of a product with arrays does a GPU compute in one launch of a kernel?

A step has a file in PyTorch, which says what is computed and where the kernel applies, and one in Triton, whose name
ends in `_kernel` and which is imported on a GPU only.
"""
