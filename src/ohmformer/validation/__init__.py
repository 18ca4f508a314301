"""What do publications report, and does the model give the same numbers?"""
