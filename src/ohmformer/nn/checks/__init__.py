"""Does a converted model compute what the original computes, and does its noise depend only on the sample?"""
