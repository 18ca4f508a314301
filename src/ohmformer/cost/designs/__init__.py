"""How are many accelerators priced at once?"""
