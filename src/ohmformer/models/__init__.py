"""Where does a model come from, and what do its inputs become?"""
