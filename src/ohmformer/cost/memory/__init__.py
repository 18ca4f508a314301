"""What lives in which memory: weights, keys and values, tables of embeddings, and does it fit?"""
