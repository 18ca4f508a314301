"""Which works does a study rest on?"""
