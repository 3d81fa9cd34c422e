"""The standard streams of containers and of what runs in them, and the clients at them."""
