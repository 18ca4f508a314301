"""How do values become codes, and what do cells hold on average after a code was written?"""
