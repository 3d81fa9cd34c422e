"""Registries of images, as this node talks to them."""
