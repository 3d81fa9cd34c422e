"""Images and root filesystems on this node."""
