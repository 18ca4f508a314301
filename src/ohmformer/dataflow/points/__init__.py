"""How are many design points computed at once?"""
