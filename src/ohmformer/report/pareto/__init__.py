"""Which designs of a search are best, as a table, as CSV and as a figure?"""
