"""What is the answer of a study, and how is it stored? Types of results, their keys, the store, the results file."""
