"""Which products run on the matrix units of a CPU (Intel AMX), and how are their factors split into bfloat16?

A number of bfloat16 has 8 significant bits, so input codes of up to 8 bits are exact, and three such numbers hold
nearly all of a number of float32. Sums are in float32. Files whose names end in `_amx` hold compiled loops that need
such units.
"""
