"""Which points does a study have, which have a result already, and how are the others computed?"""
