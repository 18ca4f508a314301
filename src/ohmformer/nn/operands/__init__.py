"""What lives in cells: static weights, and K and V?"""
