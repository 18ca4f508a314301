"""What crosses from chip to chip, and which chip holds what?"""
