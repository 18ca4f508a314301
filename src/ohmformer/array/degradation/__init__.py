"""What do writes and time do to the cells of one array, and how are their effects compensated?"""
