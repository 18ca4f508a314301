"""What do values cost on their way through the chip, and can its memories and its network carry them?"""
