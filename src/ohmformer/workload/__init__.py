"""What does the cost half have to price, as shapes alone: products, softmaxes, normalizations? Free of torch."""
