"""Which blocks pass the stages of a layer, in which order, and how long does each take?"""
