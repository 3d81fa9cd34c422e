"""The name server of user-defined networks: containers ask 127.0.0.11, the executor answers."""
