"""What is a result? Types of results, their keys, the results file, and tables for other programs."""
