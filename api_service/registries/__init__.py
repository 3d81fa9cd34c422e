"""Which registries images come from."""
