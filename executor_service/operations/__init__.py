"""What the executor can do, an operation a file."""
