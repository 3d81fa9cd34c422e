"""The files of containers as tar archives, out and in, and what they changed: by descriptors, never by host paths."""
