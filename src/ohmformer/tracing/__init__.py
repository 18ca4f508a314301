"""What does a real model compute, as a `Workload`?"""
