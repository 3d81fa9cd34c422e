"""The version of this installation, read once: a service that gave up root may not be able to read it later."""

from importlib.metadata import version

VERSION = version("slipway")
