"""On which data is a model judged, and by which metric?"""
