"""How sure is a number: intervals, and measures of many samples together."""
