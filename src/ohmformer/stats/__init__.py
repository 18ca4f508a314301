"""How far may a measured number be from the truth? Intervals of means, correlations, perplexities. Free of torch."""
