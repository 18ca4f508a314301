"""Where does a model come from, and how are its inputs prepared?"""
