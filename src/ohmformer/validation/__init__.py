"""What do other people report, and does the model give the same?"""
