"""How does each cell of a value correct the errors of the cells that were written before it?"""
