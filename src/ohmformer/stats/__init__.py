"""How sure is a number? Intervals, and measures of many samples together. Free of torch."""
