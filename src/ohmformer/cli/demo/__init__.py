"""Which demos are there, what do they need, and what do they say before and after they run?"""
