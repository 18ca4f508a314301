"""How much of a cell's conductance acts at the end of the wires, whose resistance drops voltage (IR drop)?"""
