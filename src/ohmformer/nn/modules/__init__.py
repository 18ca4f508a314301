"""Which modules of a model multiply on crossbars, and how?"""
