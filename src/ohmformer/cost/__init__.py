"""What do the products of a workload cost on the engines that they are assigned to? Free of torch."""
