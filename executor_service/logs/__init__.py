"""A container's log: the k8s-file format conmon writes, read across rotated files and rotated without loss."""
