"""How do one kernel, or one compiled loop, write cells: digits, noise, clamp and sum in one pass?"""
