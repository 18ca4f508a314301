"""What does each candidate for K and V cost, by the cost half of the same study?"""
