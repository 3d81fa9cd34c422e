"""The executor of a node over gRPC."""
