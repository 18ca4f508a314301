"""What does using one array cost, and how do its prices follow its size, drivers and converters?"""
