"""One network a file, readable from top to bottom."""
