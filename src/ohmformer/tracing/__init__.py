"""How do captured products of a real model become a `Workload`?"""
