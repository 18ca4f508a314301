"""Which points are asked, which are answered already, and who computes the rest?"""
