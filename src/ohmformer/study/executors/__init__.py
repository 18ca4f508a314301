"""Which processes compute the points of a study: on this machine, on workers of Dask, or on actors of Ray?"""
