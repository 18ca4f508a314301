"""Which steps of a product with arrays are fused into one kernel on a GPU, or into one compiled loop on the CPU?

A step has a file in PyTorch, which says what is computed and where the kernel applies, and one that computes it: in
Triton, whose name ends in `_kernel` and which is imported on a GPU only, or for numba, whose name ends in `_compiled`
and which is imported only where compiled kernels were chosen.
"""
