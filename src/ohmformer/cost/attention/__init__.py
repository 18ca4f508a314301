"""How are keys and values written to arrays, and which keys does a causal query read?"""
