"""How is a converted model written to a file, and read back?"""
