"""Network sandboxes on this node."""
