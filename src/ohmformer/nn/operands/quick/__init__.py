"""Which calls of an operand are the usual ones, that need few steps, and what is found once for all of them?"""
