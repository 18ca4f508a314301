"""How sure is a number? Confidence intervals, correlation and perplexity. Free of torch."""
