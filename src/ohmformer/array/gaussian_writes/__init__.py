"""Which writes are one Gaussian for each cell: its moments by code (`moments`), and writes of all cells of a value by
one random number (`one_number`)?"""
