"""Many runs from one file: a study, its points, and a store that computes each of them once."""
