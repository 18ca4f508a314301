"""How large is one machine that runs several passes of a model, and what does each pass cost on it?"""
