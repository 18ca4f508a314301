"""Which power does a chip draw when it does nothing, and which at full load?"""
