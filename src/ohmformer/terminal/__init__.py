"""How does the program talk to its user: files, harmless text, progress bars, signals? Knows nothing of studies."""
