"""What must a reader know to check the results of a study, and to repeat them?"""
