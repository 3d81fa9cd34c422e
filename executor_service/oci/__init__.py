"""The OCI runtime spec, conmon and the runtime."""
