"""What do cells that were written at different times hold when they are read?"""
