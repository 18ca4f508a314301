"""What is best done to K and V before they are written?"""
