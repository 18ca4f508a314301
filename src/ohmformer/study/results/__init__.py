"""What is a result, and how is it stored? Types of results, their keys, the store and the results file."""
