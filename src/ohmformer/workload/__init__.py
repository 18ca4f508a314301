"""What must be computed, as shapes alone: products, softmax, normalization? Free of torch."""
