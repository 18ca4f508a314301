"""What must be computed: the products of a transformer and all that stands between them. Free of torch."""
