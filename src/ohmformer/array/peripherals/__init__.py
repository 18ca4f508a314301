"""What do the circuits around an array add: noise, mismatch and distortion of row drivers and converters?"""
