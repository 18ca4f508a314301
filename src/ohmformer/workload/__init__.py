"""What must be computed, as shapes alone: which products, softmaxes and normalizations? Free of torch."""
