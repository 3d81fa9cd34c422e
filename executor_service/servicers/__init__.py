"""The gRPC face of the operations: from a message, through an operation, to a message."""
