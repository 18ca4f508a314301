"""How many chips and samples does a point need, and how many chips are good?"""
