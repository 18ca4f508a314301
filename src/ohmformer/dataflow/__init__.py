"""When does it run, on which unit, and how long do the cells last? Free of torch."""
