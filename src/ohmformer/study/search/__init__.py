"""Which designs of a study are best, and which constraints do they meet? Multi-objective search with Optuna."""
