"""How old are keys and values when they are read, and when must their cells be written again?"""
