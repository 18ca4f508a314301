"""Which matrix product does a call of PyTorch compute, and how does its result follow from that product?"""
