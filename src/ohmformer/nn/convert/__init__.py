"""How does a model get onto crossbars, and off again?"""
