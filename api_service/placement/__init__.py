"""Which node a container goes to."""
